"""WebDataset tars, including img2dataset's output: a sample is a run of files with one key.

The key is the folder and the base name up to its first dot, as the ``webdataset`` package splits
names: the key of ``./train.v1/000012.left.jpg`` is ``train.v1/000012``, its extension ``left.jpg``.
The files of a sample are adjacent in the tar. A key that comes again, with an extension that the
sample has already or after another key, begins another sample, whose name gets a number (``a+2``).
What belongs to no sample is left out, as the package does: files without an extension, ``__name__``
(its own), and what operating systems leave. A tar without samples is one reject.

A sample has the image that comes first. Its captions are, in the tar's order, the texts of the
files that end in ``.txt``; if there is none, those of ``caption``, else ``captions``, in the files
that end in ``.json``, each a text or a list of texts. If several images of a sample have a text of
their own name (``0.5.jpg``, ``0.5.txt``, ``0.6.jpg``, ``0.6.txt``), the sample is one reject: its
texts describe different images, or the dots were meant to be part of the key.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from dataprep.sources.compression import CompressionDamage, Unpacked
from dataprep.sources.entries import EMPTY_CAPTION
from dataprep.sources.members import MISSING_FILE
from dataprep.sources.names import DistinctNames
from dataprep.sources.tars import TarDamage, TarFile, tar_files
from dataprep.text import clean_caption, other_encoding

DAMAGED_TAR: Final = "damaged_tar"
SEVERAL_PAIRS: Final = "several_pairs_of_one_key"
PATTERNS: Final = ("*.tar", "*.tgz", "*.tar.gz", "*.tar.bz2", "*.tar.xz", "*.tar.zst")
_IMAGES: Final = frozenset({
    *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "avif"),
    *("heic", "heif", "jp2", "jxl"),
})  # fmt: skip
"Extensions of images; the decoder decides which formats it reads."
_MAX_TEXT_BYTES: Final = 1 << 22
_MAX_NAMES_SHOWN: Final = 5
_RESERVED: Final = re.compile(r"__[^/]*__(?:$|/)")


@dataclass
class Sample:
    """One sample, or the damage that ends a tar."""

    name: str
    "Key of the sample's files, made distinct within the tar."
    image: bytes | None = None
    captions: list[str] = field(default_factory=list)
    reason: str | None = None
    "Reason of the reject; None for a good sample."
    detail: str = ""
    "What is wrong, for people."


def split_name(name: str) -> tuple[str, str]:
    """Return the key and the extension, in lower case, of a file's path in a tar."""
    folder, slash, base = name.rpartition("/")
    while folder.startswith("./"):
        folder = folder.removeprefix("./").lstrip("/")
    if folder in (".", ""):
        folder = slash = ""
    stem, _, extension = base.partition(".")
    return f"{folder}{slash}{stem}", extension.lower()


def read_tar(path: Path) -> Iterator[Sample]:
    """Yield the samples of a tar, plain or compressed, streamed.

    Damage ends it with a sample whose reason is ``damaged_tar``; it stands for an unfinished
    sample too.
    """
    names = DistinctNames()
    building: _Building | None = None
    try:
        with Unpacked(path) as file:
            for found in tar_files(file):
                key, extension = split_name(found.name)
                if not extension or _RESERVED.match(found.name):
                    continue
                if building is None or building.key != key or extension in building.extensions:
                    if building is not None:
                        yield building.sample(names)
                    building = _Building(key)
                building.add(extension, found)
    except (TarDamage, CompressionDamage, OSError) as error:
        key = building.key if building else ""
        if building is not None and (sample := building.sample(names)).reason is None:
            yield sample  # complete: the damage follows it
        detail = f"{type(error).__name__}: {error}"
        yield Sample(names(f"{key}+"), reason=DAMAGED_TAR, detail=detail)
        return
    if building is not None:
        yield building.sample(names)
    else:
        yield Sample("+", reason=MISSING_FILE, detail="no samples in the tar")


class _Building:
    """The files of one sample so far."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.extensions: set[str] = set()
        self._image: TarFile | None = None
        self._texts: list[str] = []
        self._json_texts: list[str] = []
        self._problems: list[str] = []

    def add(self, extension: str, file: TarFile) -> None:
        """Take one file; of a file that is not needed, nothing is kept."""
        self.extensions.add(extension)
        kind = extension.rpartition(".")[2]
        if kind in _IMAGES:
            self._image = self._image or file
        elif kind in ("txt", "json"):
            try:
                text = _text(file)
                if kind == "txt":
                    self._texts.append(text)
                else:
                    self._json_texts += _captions(text)
            except (ValueError, RecursionError) as error:
                self._problems.append(f"{file.name}: {error}")

    def sample(self, names: DistinctNames) -> Sample:
        """Return the sample."""
        name = names(self.key)
        if pairs := self._further_pairs():
            return Sample(name, reason=SEVERAL_PAIRS, detail=", ".join(pairs[:_MAX_NAMES_SHOWN]))
        if self._image is None:
            return Sample(name, reason=MISSING_FILE, detail="no image")
        if self._image.problem:
            return Sample(name, reason=self._image.reason, detail=self._image.problem)
        for texts in (self._texts, self._json_texts):
            if captions := [caption for text in texts if (caption := clean_caption(text))]:
                return Sample(name, self._image.data, captions)
        detail = "; ".join(self._problems) or "no caption"
        return Sample(name, reason=EMPTY_CAPTION, detail=detail)

    def _further_pairs(self) -> list[str]:
        """Return the images that have a text of their own name, if there are several."""
        names = {kind: set[str]() for kind in ("image", "txt")}
        for extension in self.extensions:
            name, _, kind = extension.rpartition(".")
            names.get("image" if kind in _IMAGES else kind, set()).add(name)
        pairs = sorted(names["image"] & names["txt"])
        return [f"{self.key}.{name}".rstrip(".") for name in pairs] if len(pairs) > 1 else []


def _text(file: TarFile) -> str:
    """Return the text of a file; bytes that are not UTF-8 are replaced.

    Raises:
        ValueError: the file cannot be read, is too large, or has another encoding.
    """
    if file.problem:
        raise ValueError(file.problem)
    if len(file.data) > _MAX_TEXT_BYTES:
        raise ValueError(f"{len(file.data)} bytes, the limit is {_MAX_TEXT_BYTES}")
    if encoding := other_encoding(file.data):
        raise ValueError(f"{encoding}, expected UTF-8")
    return file.data.decode("utf-8-sig", errors="replace")


def _captions(text: str) -> list[str]:
    """Return the captions of a JSON file.

    Raises:
        ValueError: the file is not a JSON object, or a caption is not a text.
    """
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    value: Any = content.get("caption") or content.get("captions") or []
    texts = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a caption that is not a text")
    return texts
