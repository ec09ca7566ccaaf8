"""One example of a split, with its images, as a row of the stage ``prepare``, or as a reject."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from pydantic import Field

from dataprep.images import ImageError, ImageRules, StoredImage, check_jpeg, store_image
from dataprep.row_errors import RowError
from dataprep.sources.annotations import MALFORMED_ENTRY
from dataprep.sources.members import MemberError
from dataprep.sources.names import safe_name
from dataprep.tasks.example import NO_LABELS, Example
from dataprep.tasks.image_places import Images
from dataprep.tasks.stored_label_maps import LabelMapFiles
from orchestration.params import StageParams
from pipelines.finetune.formats.format import TaskFormat

IMAGE_SIZE: Final = "image_size"
"Reason of a reject: the image has another size than the file of its objects states."


class Params(StageParams):
    """The files of a split, and what an example of the task must have."""

    source: TaskFormat
    "The files."
    num_images: int = Field(ge=0)
    "Number of images of an example."
    num_texts: tuple[int, int | None]
    "Fewest and most texts of an example; null sets no limit."
    needs_labels: bool
    "Whether an example without labels is a reject."


def judged(params: Params, example: Example) -> Example:
    """Return an example, as a reject if it is not what the task needs."""
    if example.reason:
        return example
    fewest, most = params.num_texts
    num_images, num_texts = len(example.images), len(example.texts)
    if num_images != params.num_images:
        problem = f"{num_images} images, the task needs {params.num_images}"
        return replace(example, reason=MALFORMED_ENTRY, detail=problem)
    if num_texts < fewest or (most is not None and num_texts > most):
        problem = f"{num_texts} texts, the task needs {fewest} to {most or 'any number'}"
        return replace(example, reason=MALFORMED_ENTRY, detail=problem)
    if params.needs_labels and not example.labels:
        return replace(example, reason=NO_LABELS, detail="the example has no label")
    return example


def row_of(
    example: Example, read: Callable[[str], StoredImage], maps: LabelMapFiles | None
) -> dict[str, Any] | Example:
    """Return the row of an example with its images, or the example as a reject."""
    if example.reason:
        return example
    images, size = [], example.size
    labels, label_map = list(example.labels), None
    for name in example.images:
        try:
            stored = read(name)
        except MemberError as error:  # its detail names the image
            return replace(example, reason=error.reason, detail=error.detail)
        except ImageError as error:
            detail = f"{safe_name(name)}: {error.detail}"
            return replace(example, reason=error.reason, detail=detail)
        if problem := _other_size(example, stored):
            return replace(example, reason=IMAGE_SIZE, detail=f"{safe_name(name)}: {problem}")
        images.append(stored.jpeg)
        if maps is not None:
            size = (stored.original_width, stored.original_height)
    if maps is not None and example.mask:
        try:
            label_map, labels = maps.read(example.mask, size)
        except RowError as error:
            detail = f"{safe_name(example.mask)}: {error.detail}"
            return replace(example, reason=error.reason, detail=detail)
    return {
        "example_id": example.id,
        "images": images,
        "texts": list(example.texts),
        "labels": labels,
        "main_label": example.main_label,
        "objects": [thing._asdict() for thing in example.objects],
        "size": list(size) if any(size) else [],
        "label_map": label_map,
    }


def _other_size(example: Example, stored: StoredImage) -> str | None:
    """Return in words that an image has another size than the file states, or None."""
    sides = stored.original_width, stored.original_height
    if not any(example.size) or sides == example.size:
        return None
    turned = "; its EXIF orientation may turn it" if sides == example.size[::-1] else ""
    stated = f"{example.size[0]} x {example.size[1]}"
    return f"{sides[0]} x {sides[1]} pixels, the file states {stated}{turned}"


def stored_image(images: Images, rules: ImageRules, name: str) -> StoredImage:
    """Return an image; ImageError or MemberError if there is none."""
    stored = store_image(images.read(name), rules)
    check_jpeg(stored)
    return stored
