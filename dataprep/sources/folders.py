"""Files of a folder: those that match a pattern, and images by their relative path."""

from pathlib import Path

from dataprep.sources.zips import DAMAGED_FILE, MISSING_FILE, MemberError


def files_in(folder: Path, pattern: str) -> list[str]:
    """Return the sorted relative paths of the files below ``folder`` that match ``pattern``.

    Files and folders whose names begin with a dot are left out.
    """
    found = (p.relative_to(folder) for p in folder.rglob(pattern) if p.is_file())
    return sorted(p.as_posix() for p in found if not any(part[0] == "." for part in p.parts))


class ImageFolder:
    """Images of a folder, read by their relative path."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    def read(self, name: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            MemberError: the file is missing, lies outside of the folder, or cannot be read.
        """
        try:
            path = (self._folder / name).resolve()
            is_there = path.is_relative_to(self._folder) and path.is_file()
            data = path.read_bytes() if is_there else None
        except (OSError, ValueError) as error:  # ValueError: a name that no file can have
            raise MemberError(DAMAGED_FILE, f"{name}: {error}") from None
        if data is None:
            raise MemberError(MISSING_FILE, f"{name} is not in {self._folder}")
        return data
