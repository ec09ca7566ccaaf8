"""ImageNet-21K (``fall11_whole.tar``, ``winter21_whole.tar.gz``): a tar of one tar per synset.

The archive is streamed, never unpacked: a synset is a byte range of the outer tar, and its images
are read one at a time. Images are named ``<wnid>_<number>.JPEG``; the wnid is the label. A gzipped
archive has no byte ranges, so one pass makes indexes of its segments (see ``gzip_pass``).
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tarfile import BLOCKSIZE, TarInfo
from typing import Any, BinaryIO, Final

from dataprep.sources.compression import compression_of
from dataprep.sources.gzip_pass import GzipPass, Position
from dataprep.sources.names import DistinctNames, is_housekeeping, safe_name
from dataprep.sources.seekable_gzip import GZIP_DAMAGE, open_range
from dataprep.sources.tars import Forward, TarDamage, headers, tar_files

DAMAGED_SYNSET: Final = "damaged_tar"
"Reason of a reject: the rest of a synset cannot be read."
_BLOCK_BYTES: Final = 1 << 20


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
class Segment:
    """What the pass over a gzipped archive has found in one segment."""

    position: Position
    "Where the pass stands behind the segment."
    start: int
    "Offset of the segment in the unzipped archive."
    members_end: int
    "Offset behind the last member whose header was read."
    tars: list[tuple[str, int, int]]
    "Path without the extension, offset and bytes of each inner tar whose header was read."
    index: bytes = b""
    "Index of the segment."


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
    tars: list[tuple[str, int, int]] = []
    end = 0
    with path.open("rb") as file:
        for member in _members(file, path):
            end = member.offset_data + member.size
            tars += _tar_of(member, path)
        file.seek(max(end - 1, 0))
        if not file.read(1):
            raise _truncated(path, end)
    return distinct_synsets(tars, path)


def index_gzipped(
    path: Path, commit: Callable[[Segment], None], begun: Segment | None = None
) -> None:
    """Read a gzipped archive once and hand over its segments in their order.

    Args:
        path: path of the archive.
        commit: called with each segment once it is complete.
        begun: last segment of an earlier pass, with its index; the pass goes on behind it.

    Raises:
        ArchiveError: the file is not a gzipped tar, is damaged or truncated.
    """
    try:
        _Listing(path, commit, begun).run()
    except GZIP_DAMAGE as error:
        raise ArchiveError(f"{path}: {error}") from None


def read_synset(path: Path, synset: Synset, indexes: Sequence[BinaryIO] = ()) -> Iterator[Image]:
    """Yield the images of one synset; damage ends it with an image whose ``problem`` is set.

    Args:
        path: path of the archive.
        synset: byte range of the synset.
        indexes: opened indexes of the segments of a gzipped archive that hold the synset.

    Raises:
        dataprep.sources.seekable_gzip.IndexFileError: the index belongs to another archive.
    """
    with _opened(path, synset, indexes) as file:
        folder = f"{synset.folder}/" if synset.folder else ""
        names, name = DistinctNames(), f"{folder}{synset.wnid}"
        try:
            for found in tar_files(file, synset.num_bytes):
                name = names(f"{folder}{Path(found.name).stem}")
                yield Image(name, found.data, found.problem, found.reason)
        except (TarDamage, *GZIP_DAMAGE) as error:
            yield Image(names(f"{name}+"), problem=str(error))


class _Listing:
    """A pass over a gzipped archive, which is read forward as one file."""

    def __init__(
        self, path: Path, commit: Callable[[Segment], None], begun: Segment | None
    ) -> None:
        self._path, self._commit = path, commit
        self._end = begun.members_end if begun else 0
        position = begun.position if begun else Position()
        self._pass = GzipPass(path, position, begun.index if begun else None)
        self._base = -(-self._end // BLOCKSIZE) * BLOCKSIZE
        self._skip = max(self._base - position.offset, 0)
        self._blocks = self._content(begun)
        self._block = memoryview(b"")
        self._tars: list[tuple[str, int, int]] = []
        self._last: Segment | None = None

    def run(self) -> None:
        """Read the headers, then what follows the last one, for its checksum."""
        # Left to the garbage collector, it would wait for its thread within any other thread.
        with closing(self._blocks):
            self._run()

    def _run(self) -> None:
        file = Forward(self)
        self._block = memoryview(next(self._blocks, b""))
        has_more = bool(self._block) or self._base == 0  # tarfile refuses an empty file
        for member in _members(file, self._path) if has_more else ():
            member.offset_data += self._base
            self._end = member.offset_data + member.size
            self._tars += _tar_of(member, self._path)
        while file.read(_BLOCK_BYTES):
            continue
        if self._pass.position.offset < self._end:
            raise _truncated(self._path, self._end)
        if self._last:
            self._commit(self._last)

    def read(self, num_bytes: int) -> bytes:
        """Return some of the next bytes; none at the end."""
        if not self._block:
            self._block = memoryview(next(self._blocks, b""))
        taken, self._block = bytes(self._block[:num_bytes]), self._block[num_bytes:]
        return taken

    def _content(self, begun: Segment | None) -> Generator[bytes, None, None]:
        """Yield the content from the next header on, and hand over each segment behind its end."""
        if begun and self._base < begun.position.offset:  # a header across the position
            num_bytes = begun.position.offset - self._base
            with open_range(self._path, [BytesIO(begun.index)], self._base, num_bytes) as file:
                yield file.read(num_bytes)
        with closing(self._pass.segments()) as segments:
            for index, blocks in segments:
                start = self._pass.position.offset
                for block in blocks:
                    skipped = min(self._skip, len(block))
                    self._skip -= skipped
                    if skipped < len(block):
                        yield block[skipped:]
                found, self._tars = self._tars, []
                segment = Segment(self._pass.position, start, self._end, found, index)
                if segment.position.is_end:
                    self._last = segment  # the end of the tar may still turn out to be missing
                else:
                    self._commit(segment)


def _opened(path: Path, synset: Synset, indexes: Sequence[BinaryIO]) -> Any:
    if indexes:
        return open_range(path, indexes, synset.offset, synset.num_bytes)
    file = path.open("rb")
    file.seek(synset.offset)
    return file


def _members(file: Any, path: Path) -> Iterator[TarInfo]:
    """Yield the headers of an archive."""
    try:
        yield from headers(file)
    except TarDamage as error:
        raise ArchiveError(f"{path}: not a complete tar of synsets ({error})") from None


def _tar_of(member: TarInfo, path: Path) -> list[tuple[str, int, int]]:
    """Return (path without extension, offset, bytes) of an inner tar, or nothing."""
    if is_housekeeping(member.name) or not member.name.endswith(".tar") or member.isdir():
        return []
    name = safe_name(member.name)
    if not member.isfile() or member.issparse():
        raise ArchiveError(f"{path}: {name} is a link or a sparse file; repack it")
    return [(name.removesuffix(".tar").removeprefix("./"), member.offset_data, member.size)]


def _truncated(path: Path, end: int) -> ArchiveError:
    return ArchiveError(f"{path}: truncated, its last synset ends at byte {end}")


def distinct_synsets(tars: Sequence[tuple[str, int, int]], path: Path) -> list[Synset]:
    """Return the synsets of an archive's inner tars; equal names are distinguished by their path.

    Raises:
        ArchiveError: there are none.
    """
    if not tars:
        raise ArchiveError(f"{path}: no *.tar in the archive; expected a tar of one tar per synset")
    counts, names = Counter(Path(name).name for name, _, _ in tars), DistinctNames()
    return [
        Synset(wnid, offset, num_bytes, names(name) if counts[wnid] > 1 else "")
        for name, offset, num_bytes in tars
        for wnid in [Path(name).name]
    ]
