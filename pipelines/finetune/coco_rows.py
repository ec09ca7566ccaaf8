"""Examples and predictions of detection as COCO's annotations and results."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataprep.tasks.example import id_in_file
from dataprep.tasks.run_lengths import mask_of, text_of_mask

Truth = dict[str, list[dict[str, Any]]]
"``images``, ``annotations`` and ``categories`` of COCO's JSON."


def numbered_classes(*tables: pa.Table) -> dict[str, int]:
    """Return an id for each class that occurs in the tables."""
    names = {
        name for table in tables for name in pc.unique(pc.list_flatten(table["labels"])).to_pylist()
    }
    return {name: number for number, name in enumerate(sorted(names), start=1)}


def lacks_masks(examples: pa.Table) -> bool:
    """Return whether a split has objects, none of which has a mask."""
    things = pc.list_flatten(examples["objects"]).combine_chunks()
    return len(things) > 0 and pc.all(pc.equal(pc.struct_field(things, "mask"), "")).as_py()


def truth_of(examples: pa.Table, classes: Mapping[str, int]) -> Truth:
    """Return the annotations of a split, whose images have numbers as ids: see :func:`_ranks`.

    Args:
        examples: with the columns ``example_id``, ``labels``, ``objects`` and ``size``.
        classes: id of each class.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    rows = examples.select(["labels", "objects", "size"]).to_pylist()
    for number, row in zip(_ranks(_image_ids(examples)), rows, strict=True):
        width, height = row["size"]
        images.append({"id": number, "width": width, "height": height})
        for thing, label in zip(row["objects"], row["labels"], strict=True):
            entry = {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": classes[label],
                "bbox": thing["box"],
                "area": thing["area"],
                "iscrowd": int(thing["is_crowd"]),
            }
            if thing["mask"]:
                entry["segmentation"] = {"size": [height, width], "counts": thing["mask"]}
            annotations.append(entry)
    categories = [{"id": id_, "name": name} for name, id_ in classes.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def results_of(
    predictions: pa.Table, classes: Mapping[str, int], *, by_name: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield the results of a split, in COCO's form of detections.

    Args:
        predictions: rows of ``dataprep.schemas.PREDICTIONS``.
        classes: id of each class.
        by_name: whether images have their own ids rather than those of :func:`truth_of`.

    Raises:
        ValueError: a predicted class has no id.
    """
    ids = _image_ids(predictions)
    for image, row in zip(ids if by_name else _ranks(ids), predictions.to_pylist(), strict=True):
        for i, (label, score, box) in enumerate(
            zip(row["labels"], row["scores"], row["boxes"], strict=True)
        ):
            if label not in classes:
                raise ValueError(f"no category is named {label!r}")
            result = {
                "image_id": image,
                "category_id": classes[label],
                "bbox": [round(value, 2) for value in box],
                "score": round(score, 6),
            }
            if row["masks"]:
                width, height = row["size"]
                result["segmentation"] = {"size": [height, width], "counts": row["masks"][i]}
            yield result


def results_by_chance(truth: Truth) -> Iterator[dict[str, Any]]:
    """Yield what a prediction says that looks at no image: the objects of the image before it.

    They are scaled to the image, and all have the same score.
    """
    by_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in truth["images"]}
    for entry in truth["annotations"]:
        if not entry["iscrowd"]:
            by_image[entry["image_id"]].append(entry)
    for image, before in zip(truth["images"], truth["images"][-1:] + truth["images"], strict=False):
        across, down = image["width"] / before["width"], image["height"] / before["height"]
        for entry in by_image[before["id"]]:
            x, y, width, height = entry["bbox"]
            result = {
                "image_id": image["id"],
                "category_id": entry["category_id"],
                "bbox": [x * across, y * down, width * across, height * down],
                "score": 1.0,
            }
            if "segmentation" in entry:
                result["segmentation"] = {
                    "size": [image["height"], image["width"]],
                    "counts": _scaled(entry["segmentation"], image["width"], image["height"]),
                }
            yield result


def _image_ids(rows: pa.Table) -> list[int | str]:
    return [id_in_file(name) for name in rows["example_id"].to_pylist()]


def _ranks(ids: Sequence[int | str]) -> list[int]:
    """Return the place of each image in the order of the ids.

    COCO's evaluation takes images in this order, by which detections of equal scores are ranked.
    """
    order = sorted(range(len(ids)), key=lambda i: (isinstance(ids[i], str), ids[i]))
    ranks = [0] * len(ids)
    for rank, i in enumerate(order):
        ranks[i] = rank
    return ranks


def _scaled(segmentation: Mapping[str, Any], width: int, height: int) -> str:
    """Return a mask as text of run lengths in an image of another size."""
    old_height, old_width = segmentation["size"]
    mask = mask_of(segmentation["counts"], old_width, old_height).astype(np.uint8)
    return text_of_mask(cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST) > 0)
