"""Files of a folder that are named in a recipe as one corpus."""

from pathlib import Path


def files_in(folder: Path, pattern: str) -> list[str]:
    """Return the files below ``folder`` that match ``pattern``: relative paths, sorted."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob(pattern) if p.is_file())
