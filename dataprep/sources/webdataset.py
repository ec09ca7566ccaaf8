"""WebDataset tars, including img2dataset's output: a sample is a run of files with one stem.

A sample is ``000012.jpg`` with ``000012.txt`` (the caption) or ``000012.json`` (the caption under
the key ``caption``); the text file has precedence. The files of a sample are adjacent in the tar.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dataprep.sources.tars import TarDamage, tar_files
from dataprep.text import clean_caption

_IMAGE_EXTENSIONS: Final = ("jpg", "jpeg", "png", "webp")
DAMAGED_TAR: Final = "damaged_tar"


@dataclass
class Sample:
    """One sample, or the damage that ends a tar."""

    name: str
    "Stem of the sample's files within the tar."
    image: bytes | None = None
    caption: str = ""
    problem: str | None = None
    "Damage that ended the tar here; None for a sample."


def read_tar(path: Path) -> Iterator[Sample]:
    """Yield the samples of a tar, streamed; damage ends it with a sample with a ``problem``."""
    sample: Sample | None = None
    try:
        with path.open("rb") as file:
            for name, data in tar_files(file):
                stem, _, extension = name.partition(".")
                if sample is None or sample.name != stem:
                    if sample is not None:
                        yield sample
                    sample = Sample(stem)
                _add(sample, extension.lower(), data)
    except (TarDamage, OSError) as error:
        if sample is not None and sample.image is not None and sample.caption:
            yield sample  # complete: the damage follows it
        yield Sample(
            f"{sample.name if sample else ''}+", problem=f"{type(error).__name__}: {error}"
        )
        return
    if sample is not None:
        yield sample


def _add(sample: Sample, extension: str, data: bytes) -> None:
    if extension in _IMAGE_EXTENSIONS:
        sample.image = data
    elif extension == "txt":
        sample.caption = clean_caption(data.decode("utf-8", errors="replace"))
    elif extension == "json" and not sample.caption:
        try:
            caption = json.loads(data)["caption"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return
        sample.caption = clean_caption(caption) if isinstance(caption, str) else ""
