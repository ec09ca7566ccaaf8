"""Names of files and archive members: ids made of them, and names that are not data.

Names are bytes on disk and in a tar. Python hands on those that are not UTF-8 as surrogates, by
which the file is opened; an id shows them escaped.
"""

import re
from typing import Final

_ESCAPED: Final = re.compile("[\\x00-\\x1f\\x7f\\\\\ud800-\udfff]")
_BEFORE_PATH: Final = re.compile(r"\A(?:\.?/)+")
_NOT_DATA: Final = frozenset({
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini"),
    *("$recycle.bin", "system volume information", "lost+found", "@eadir"),
})  # fmt: skip
"Files and folders that operating systems leave beside data, in lower case."


def safe_name(name: str) -> str:
    r"""Return a name for ids: bytes that are not UTF-8, control characters and ``\`` escaped.

    Different names stay different. ``b"caf\xe9.jpg"`` becomes ``caf\xe9.jpg``.
    """
    return _ESCAPED.sub(_escape, name)


def member_path(name: str) -> str:
    r"""Return the name of a member of a zip archive as a relative path with slashes.

    Examples: ``a\0.jpg``, ``./a/0.jpg`` and ``/a/0.jpg`` are all ``a/0.jpg``.
    """
    return _BEFORE_PATH.sub("", name.replace("\\", "/"))


def is_housekeeping(path: str) -> bool:
    """Return whether a path is hidden or was left by an operating system, so that it is not data.

    Examples: ``._0.jpg``, ``.DS_Store``, ``__MACOSX/0.jpg``, ``a/Thumbs.db``.
    """
    return any(
        part.lower() in _NOT_DATA or (part.startswith(".") and part not in (".", ".."))
        for part in path.split("/")
    )


class DistinctNames:
    """Gives each name once: a repeated one gets its number, as in ``a+2``."""

    def __init__(self) -> None:
        self._next: dict[str, int] = {}

    def __call__(self, name: str) -> str:
        """Return the name, or one that was not returned before."""
        if name not in self._next:
            self._next[name] = 2
            return name
        number = self._next[name]
        while (result := f"{name}+{number}") in self._next:
            number += 1
        self._next[name] = number + 1
        self._next[result] = 2
        return result


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    if character == "\\":
        return "\\\\"
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}"
