"""Files and archive members that cannot be read, with the reasons of their rejects."""

from typing import Final

MISSING_FILE: Final = "missing_file"
DAMAGED_FILE: Final = "damaged_file"
LINKED_FILE: Final = "linked_file"
"A link that is not followed: a broken one, a circle, or a link within a tar or zip archive."
MAX_FILE_BYTES: Final = 1 << 30
"Largest file or member that is read into memory; larger ones are rejects."


class MemberError(ValueError):
    """A file that cannot be read; ``reason`` is a constant of this module."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"
