"""Annotated images, as the readers of COCO, Flickr30K and Visual Genome return them."""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataprep.sources.zips import ZIP_DAMAGE


class AnnotationError(ValueError):
    """An annotation file does not have the format of its dataset."""


@dataclass(frozen=True)
class AnnotatedImage:
    """One image of an annotation file, with its captions."""

    name: str
    "Name within the source; becomes part of the sample id."
    member: str
    "Path of the image inside the archives."
    captions: list[str]
    excluded: str | None = None
    "Reason why the image must not be used for training; None if it may."


def read_json(path: Path) -> Any:
    """Return the content of a JSON file, or of the one JSON file in a zip archive.

    Raises:
        AnnotationError: the content is not JSON.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                (name,) = [n for n in archive.namelist() if n.endswith(".json")]
                return json.loads(archive.read(name))
        return json.loads(path.read_bytes())
    except (*ZIP_DAMAGE, RecursionError) as error:
        raise AnnotationError(f"{path}: not JSON ({error})") from None
