"""ImageNet-21K (``fall11_whole.tar``, ``winter21_whole.tar``): a tar of one tar per synset.

The archive is streamed, never unpacked: a synset is a byte range of the outer tar, and a picture
is read out of it in memory. Pictures are named ``<wnid>_<number>.JPEG``; the wnid is the label.
"""

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Synset:
    """One inner tar as a byte range of the archive."""

    wnid: str
    offset: int
    num_bytes: int


def synsets(path: Path) -> Iterator[Synset]:
    """Yield the synsets in the archive's order, reading headers only.

    Raises:
        tarfile.ReadError: the file is not a tar.
    """
    with tarfile.open(path, "r:") as outer:
        for member in outer:
            if member.isfile() and member.name.endswith(".tar"):
                yield Synset(Path(member.name).stem, member.offset_data, member.size)
            outer.members.clear()  # type: ignore[attr-defined]  # headers must not pile up


def read_synset(path: Path, synset: Synset) -> Iterator[tuple[str, bytes]]:
    """Yield (picture name without its ending, bytes) of one synset."""
    with path.open("rb") as file:
        file.seek(synset.offset)
        inner = io.BytesIO(file.read(synset.num_bytes))
    with tarfile.open(fileobj=inner, mode="r:") as archive:
        for member in archive:
            data = archive.extractfile(member)
            if data is not None:
                yield Path(member.name).stem, data.read()
