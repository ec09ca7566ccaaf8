"""Files of a folder that are named in a recipe as one corpus."""

from pathlib import Path

from dataprep.sources.zips import DAMAGED_FILE, MISSING_FILE, MemberError


def files_in(folder: Path, pattern: str) -> list[str]:
    """Return the files below ``folder`` that match ``pattern``: relative paths, sorted.

    What begins with a dot is left out, and so is what lies in folders that do.
    """
    found = (p.relative_to(folder) for p in folder.rglob(pattern) if p.is_file())
    return sorted(p.as_posix() for p in found if not any(part[0] == "." for part in p.parts))


class PictureFolder:
    """Pictures of a folder, by the names that annotations give them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    def read(self, name: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            MemberError: it is not there, lies outside of the folder, or cannot be read.
        """
        try:
            path = (self._folder / name).resolve()
            if not path.is_relative_to(self._folder) or not path.is_file():
                raise MemberError(MISSING_FILE, f"{name} is not in {self._folder}")
            return path.read_bytes()
        except (OSError, ValueError) as error:
            if isinstance(error, MemberError):
                raise
            raise MemberError(DAMAGED_FILE, f"{name}: {error}") from None
