"""Files of a folder that are named in a recipe as one corpus."""

from pathlib import Path

from dataprep.sources.zips import DAMAGED_FILE, MISSING_FILE, MemberError


def files_in(folder: Path, pattern: str) -> list[str]:
    """Return the files below ``folder`` that match ``pattern``: relative paths, sorted.

    What begins with a dot is left out, and so is what lies in folders that do.
    """
    found = (p.relative_to(folder) for p in folder.rglob(pattern) if p.is_file())
    return sorted(p.as_posix() for p in found if not any(part[0] == "." for part in p.parts))


class ImageFolder:
    """Images of a folder, by the names that annotations give them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    def read(self, name: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            MemberError: it is not there, lies outside of the folder, or cannot be read.
        """
        try:
            path = (self._folder / name).resolve()
            is_there = path.is_relative_to(self._folder) and path.is_file()
            data = path.read_bytes() if is_there else None
        except (OSError, ValueError) as error:  # the latter of names that no file can have
            raise MemberError(DAMAGED_FILE, f"{name}: {error}") from None
        if data is None:
            raise MemberError(MISSING_FILE, f"{name} is not in {self._folder}")
        return data
