"""Files of a folder: those that match a pattern, and their bytes by their relative path.

Links are followed, to files and to folders, inside the folder and out of it: data sets are often
laid out as links. A broken link, a circle and a pipe have a name too, so that reading it gives a
reject. What is hidden or left by an operating system is not data (see ``names``).
"""

import errno
import fnmatch
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from dataprep.sources.lines import ListError
from dataprep.sources.members import (
    DAMAGED_FILE,
    LINKED_FILE,
    MAX_FILE_BYTES,
    MISSING_FILE,
    MemberError,
)
from dataprep.sources.names import is_housekeeping, safe_name

_MAX_NAMES_SHOWN = 5


def files_in(folder: Path, *patterns: str) -> list[str]:
    """Return the sorted relative paths of the files below ``folder`` that match a pattern.

    Args:
        folder: path of the folder.
        patterns: patterns of file names, such as ``*.tar``, in upper or lower case.

    Raises:
        ListError: there is no such file; the message names what lies there instead.
    """
    names = sorted(_walk(folder, ""))
    if not names and "*" in patterns:
        raise ListError(f"{folder}: the folder holds no files; correct the path")
    found = [name for name in names if _matches(name.rpartition("/")[2], patterns)]
    if not found:
        shown = ", ".join(map(safe_name, names[:_MAX_NAMES_SHOWN])) or "nothing"
        more = f" and {len(names) - _MAX_NAMES_SHOWN} more" * (len(names) > _MAX_NAMES_SHOWN)
        wanted = " or ".join(patterns)
        raise ListError(f"{folder}: no files {wanted}; the folder holds {shown}{more}")
    return found


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name.lower(), pattern.lower()) for pattern in patterns)


class FolderFiles:
    """Files of a folder, read by their relative path."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            MemberError: the path leads out of the folder, or the file is missing, is a broken link,
                is not a regular file, is too large, or cannot be read.
        """
        if name.startswith("/") or ".." in name.split("/") or "\0" in name:
            raise MemberError(MISSING_FILE, f"{safe_name(name)} is not in {self._folder.name}")
        return read_file(self._folder / name, safe_name(name))


def read_file(path: Path, shown: str) -> bytes:
    """Return the bytes of a regular file.

    Args:
        path: path of the file.
        shown: its name, for messages.

    Raises:
        MemberError: the file is missing, is a broken link, is not a regular file, is too large, or
            cannot be read.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            if path.is_symlink():
                target = safe_name(str(path.readlink()))
                raise MemberError(LINKED_FILE, f"{shown} is a link to {target}, no regular file")
            raise MemberError(DAMAGED_FILE, f"{shown} is not a regular file")
        if status.st_size > MAX_FILE_BYTES:
            detail = f"{shown} has {status.st_size} bytes, the limit is {MAX_FILE_BYTES}"
            raise MemberError(DAMAGED_FILE, detail)
        return path.read_bytes()
    except FileNotFoundError:
        if path.is_symlink():
            target = safe_name(str(path.readlink()))
            raise MemberError(LINKED_FILE, f"{shown} is a broken link to {target}") from None
        raise MemberError(MISSING_FILE, f"{shown} does not exist") from None
    except OSError as error:
        reason = LINKED_FILE if error.errno == errno.ELOOP else DAMAGED_FILE
        raise MemberError(reason, f"{shown}: {error.strerror}") from None


def _walk(folder: Path, prefix: str, above: tuple[tuple[int, int], ...] = ()) -> Iterator[str]:
    """Yield the relative paths of all files below a folder, and of links that lead back up."""
    try:
        status = folder.stat()
        here = (*above, (status.st_dev, status.st_ino))
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise ListError(f"{folder}: cannot be read ({error.strerror})") from None
    for entry in entries:
        name = f"{prefix}{entry.name}"
        if is_housekeeping(entry.name):
            continue
        if not _is_folder(entry):
            yield name
        elif _identity(entry) in here:
            yield name  # a circle, which ends here
        else:
            yield from _walk(Path(entry.path), f"{name}/", here)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _identity(entry: "os.DirEntry[str]") -> tuple[int, int]:
    status = entry.stat()
    return status.st_dev, status.st_ino
