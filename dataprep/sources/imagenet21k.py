"""ImageNet-21K (``fall11_whole.tar``, ``winter21_whole.tar.gz``): a tar of one tar per synset.

The archive is streamed, never unpacked: a synset is a byte range of the outer tar, and its
images are read one at a time. Images are named ``<wnid>_<number>.JPEG``; the wnid is the label.
A gzipped archive has no ranges of its own: one pass makes an index of it (see ``seekable_gzip``).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from dataprep.sources.seekable_gzip import GZIP_DAMAGE, build_index, open_range
from dataprep.sources.tars import TarDamage, headers, tar_files

DAMAGED_SYNSET: Final = "damaged_tar"
"Reason of a reject: what follows in a synset cannot be read."


class ArchiveError(ValueError):
    """An archive that is damaged outside its synsets, or none."""


@dataclass(frozen=True)
class Synset:
    """One inner tar as a byte range of the archive, unzipped."""

    wnid: str
    offset: int
    num_bytes: int


@dataclass(frozen=True)
class Image:
    """One image as it was read."""

    name: str
    "Without its ending."
    data: bytes = b""
    problem: str | None = None
    "What ended the synset here."


def synsets(path: Path) -> Iterator[Synset]:
    """Yield the synsets of a plain archive in its order, reading headers only.

    Raises:
        ArchiveError: the file is no tar, or is cut off.
    """
    with path.open("rb") as file:
        yield from _synsets(file, path)


def index_gzipped(path: Path, index: Path) -> list[Synset]:
    """Read a gzipped archive once: write its index and return its synsets.

    Raises:
        ArchiveError: the file is no gzipped tar, or is cut off.
    """
    try:
        return list(_synsets(build_index(path, index), path))
    except GZIP_DAMAGE as error:
        raise ArchiveError(f"{path}: {error}") from None


def read_synset(path: Path, synset: Synset, index: BinaryIO | None = None) -> Iterator[Image]:
    """Yield the images of one synset; damage ends it with an image that says so.

    Args:
        path: of the archive.
        synset: as the archive's list gives it.
        index: of a gzipped archive, opened.

    Raises:
        dataprep.sources.seekable_gzip.IndexFileError: the index is not this archive's.
    """
    with _opened(path, synset, index) as file:
        name = synset.wnid
        try:
            for member, data in tar_files(file, synset.num_bytes):
                name = Path(member).stem
                yield Image(name, data)
        except (TarDamage, *GZIP_DAMAGE) as error:
            yield Image(f"{name}+", problem=str(error))


def _opened(path: Path, synset: Synset, index: BinaryIO | None) -> Any:
    if index is not None:
        return open_range(path, index, synset.offset, synset.num_bytes)
    file = path.open("rb")
    file.seek(synset.offset)
    return file


def _synsets(file: Any, path: Path) -> Iterator[Synset]:
    end = 0
    try:
        for member in headers(file):
            end = member.offset_data + member.size
            if member.isfile() and member.name.endswith(".tar"):
                yield Synset(Path(member.name).stem, member.offset_data, member.size)
    except TarDamage as error:
        raise ArchiveError(f"{path}: not a whole tar of synsets ({error})") from None
    file.seek(max(end - 1, 0))
    if not file.read(1):
        raise ArchiveError(f"{path}: cut off, its last synset ends at byte {end}")
