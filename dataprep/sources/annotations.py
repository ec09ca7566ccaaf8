"""Annotated images: what the readers of COCO and Visual Genome give."""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataprep.sources.zips import ZIP_DAMAGE


class AnnotationError(ValueError):
    """A file of annotations that does not have its form."""


@dataclass(frozen=True)
class Annotated:
    """One image with its captions, as an annotation file has it."""

    name: str
    "Within the source: becomes part of the sample id."
    member: str
    "Path in the archives of images."
    captions: list[str]
    excluded: str | None = None
    "Why the image must not be trained on."


def read_json(path: Path) -> Any:
    """Return the content of a JSON file, also of one that lies alone in a zip archive.

    Raises:
        AnnotationError: it is not JSON.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                (name,) = [n for n in archive.namelist() if n.endswith(".json")]
                return json.loads(archive.read(name))
        return json.loads(path.read_bytes())
    except (*ZIP_DAMAGE, RecursionError) as error:
        raise AnnotationError(f"{path}: not JSON ({error})") from None
