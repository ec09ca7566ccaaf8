"""ImageNet-21K (``fall11_whole.tar``, ``winter21_whole.tar.gz``): a tar of one tar per synset.

The archive is streamed, never unpacked: a synset is a byte range of the outer tar, and its images
are read one at a time. Images are named ``<wnid>_<number>.JPEG``; the wnid is the label. A gzipped
archive has no byte ranges, so one pass makes an index of it (see ``seekable_gzip``).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from dataprep.sources.seekable_gzip import GZIP_DAMAGE, build_index, open_range
from dataprep.sources.tars import TarDamage, headers, tar_files

DAMAGED_SYNSET: Final = "damaged_tar"
"Reason of a reject: the rest of a synset cannot be read."


class ArchiveError(ValueError):
    """A file is not an archive of synsets, or is damaged outside of them."""


@dataclass(frozen=True)
class Synset:
    """One inner tar, as a byte range of the unzipped archive."""

    wnid: str
    offset: int
    num_bytes: int


@dataclass(frozen=True)
class Image:
    """One image of a synset, or the damage that ends the synset."""

    name: str
    "File name without its extension."
    data: bytes = b""
    problem: str | None = None
    "Damage that ended the synset here; None for an image."


def synsets(path: Path) -> Iterator[Synset]:
    """Yield the synsets of a plain archive in order, reading headers only.

    Raises:
        ArchiveError: the file is not a tar or is truncated.
    """
    with path.open("rb") as file:
        yield from _synsets(file, path)


def index_gzipped(path: Path, index: Path) -> list[Synset]:
    """Read a gzipped archive once: write its index and return its synsets.

    Raises:
        ArchiveError: the file is not a gzipped tar or is truncated.
    """
    try:
        return list(_synsets(build_index(path, index), path))
    except GZIP_DAMAGE as error:
        raise ArchiveError(f"{path}: {error}") from None


def read_synset(path: Path, synset: Synset, index: BinaryIO | None = None) -> Iterator[Image]:
    """Yield the images of one synset; damage ends it with an image whose ``problem`` is set.

    Args:
        path: path of the archive.
        synset: byte range of the synset.
        index: opened index of a gzipped archive; None for a plain one.

    Raises:
        dataprep.sources.seekable_gzip.IndexFileError: the index belongs to another archive.
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
        raise ArchiveError(f"{path}: not a complete tar of synsets ({error})") from None
    file.seek(max(end - 1, 0))
    if not file.read(1):
        raise ArchiveError(f"{path}: truncated, its last synset ends at byte {end}")
