"""ImageNet-21K (``fall11_whole.tar``, ``winter21_whole.tar.gz``): a tar of one tar per synset.

The archive is streamed, never unpacked: a synset is a byte range of the outer tar, and its images
are read one at a time. Images are named ``<wnid>_<number>.JPEG``; the wnid is the label. A gzipped
archive has no byte ranges, so one pass makes an index of it (see ``seekable_gzip``).
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from dataprep.sources.compression import compression_of
from dataprep.sources.names import DistinctNames, is_housekeeping, safe_name
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
    folder: str = ""
    "Path of the tar within the archive, if several tars have its name; else empty."


@dataclass(frozen=True)
class Image:
    """One image of a synset, or the damage that ends the synset."""

    name: str
    "File name without its extension, within the tar's folder; distinct within the archive."
    data: bytes = b""
    problem: str | None = None
    "Why the image cannot be read, or the damage that ended the synset here; None for an image."
    reason: str = DAMAGED_SYNSET
    "Reason of the reject, if there is a problem."


def synsets(path: Path) -> list[Synset]:
    """Return the synsets of a plain archive in order, reading headers only.

    Raises:
        ArchiveError: the file is not a tar, holds no tars, or is truncated.
    """
    if (compression := compression_of(path)) is not None:
        raise ArchiveError(f"{path}: compressed by {compression}; unpack it, or repack it by gzip")
    with path.open("rb") as file:
        return _distinct(_synsets(file, path), path)


def index_gzipped(path: Path, index: Path) -> list[Synset]:
    """Read a gzipped archive once: write its index and return its synsets.

    Raises:
        ArchiveError: the file is not a gzipped tar or is truncated.
    """
    try:
        return _distinct(_synsets(build_index(path, index), path), path)
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
        folder = f"{synset.folder}/" if synset.folder else ""
        names, name = DistinctNames(), f"{folder}{synset.wnid}"
        try:
            for found in tar_files(file, synset.num_bytes):
                name = names(f"{folder}{Path(found.name).stem}")
                yield Image(name, found.data, found.problem, found.reason)
        except (TarDamage, *GZIP_DAMAGE) as error:
            yield Image(names(f"{name}+"), problem=str(error))


def _opened(path: Path, synset: Synset, index: BinaryIO | None) -> Any:
    if index is not None:
        return open_range(path, index, synset.offset, synset.num_bytes)
    file = path.open("rb")
    file.seek(synset.offset)
    return file


def _synsets(file: Any, path: Path) -> Iterator[tuple[str, int, int]]:
    """Yield (path without extension, offset, bytes) of the inner tars."""
    end = 0
    try:
        for member in headers(file):
            end = member.offset_data + member.size
            name = safe_name(member.name)
            if is_housekeeping(member.name):
                continue
            if member.name.endswith(".tar") and not member.isdir():
                if not member.isfile() or member.issparse():
                    raise ArchiveError(f"{path}: {name} is a link or a sparse file; repack it")
                yield name.removesuffix(".tar").removeprefix("./"), member.offset_data, member.size
    except TarDamage as error:
        raise ArchiveError(f"{path}: not a complete tar of synsets ({error})") from None
    file.seek(max(end - 1, 0))
    if not file.read(1):
        raise ArchiveError(f"{path}: truncated, its last synset ends at byte {end}")


def _distinct(found: Iterable[tuple[str, int, int]], path: Path) -> list[Synset]:
    """Return synsets; equal names are distinguished by their path."""
    tars = list(found)
    if not tars:
        raise ArchiveError(f"{path}: no *.tar in the archive; expected a tar of one tar per synset")
    counts, names = Counter(Path(name).name for name, _, _ in tars), DistinctNames()
    return [
        Synset(wnid, offset, num_bytes, names(name) if counts[wnid] > 1 else "")
        for name, offset, num_bytes in tars
        for wnid in [Path(name).name]
    ]
