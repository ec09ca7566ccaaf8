"""Files and archive members that cannot be read, with the reasons of their rejects."""

from typing import Final

from dataprep.row_errors import RowError

MISSING_FILE: Final = "missing_file"
DAMAGED_FILE: Final = "damaged_file"
LINKED_FILE: Final = "linked_file"
"A link that is not followed: a broken one, a circle, or a link within a tar or zip archive."
MAX_FILE_BYTES: Final = 1 << 30
"Largest file or member that is read into memory; larger ones are rejects."


class MemberError(RowError):
    """A file that cannot be read; ``reason`` is a constant of this module."""
