"""Images with objects → pixels of the network's size, and boxes and masks that go with them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from dataprep.images import Pixels, decode_stored
from dataprep.scale_jitter import ScaledCut, fitted, jittered
from dataprep.tasks.run_lengths import mask_of
from model.finetuning.detection.targets import Objects, Targets
from pipelines.finetune.batch import Ints, TaskBatch
from pipelines.finetune.task import Draw

_SMALLEST: Final = 1.0
"Pixels of width and height that an object keeps in the square, or else is left out."


@dataclass(frozen=True)
class View:
    """One image in the square that the network sees."""

    pixels: Pixels
    "(S, S, 3)."
    seen: tuple[int, int]
    "Height and width without padding."
    annotated: tuple[int, int]
    "Height and width to which the annotations refer."
    objects: Objects | None
    "Of a training image: what is left of its objects, without crowds."


def training_views(
    rows: pa.Table,
    labels: Mapping[str, int],
    size: int,
    scales: tuple[float, float],
    draw: Draw,
    *,
    with_masks: bool,
) -> Iterator[View]:
    """Yield a view of each training example at a random scale, with its objects.

    Args:
        rows: columns of ``dataprep.schemas.EXAMPLES``.
        labels: number of each class; objects of other classes are left out.
        size: side of the square.
        scales: smallest and largest scale, relative to that of an image that fits.
        draw: what random changes depend on.
        with_masks: whether masks are made.
    """
    for row, slot in zip(rows.to_pylist(), draw.slots.tolist(), strict=True):
        image = decode_stored(row["images"][0], row["example_id"])
        cut = jittered(
            image.shape[1],
            image.shape[0],
            size,
            scales,
            flip=draw.flip,
            seed=draw.seed,
            step=draw.step,
            slot=slot,
        )
        yield _view(cut, image, row, _objects(cut, row, labels, with_masks))


def num_objects(rows: pa.Table, labels: Mapping[str, int]) -> Ints:
    """Return the number of objects of each example that are trained on."""
    names, things = rows["labels"].combine_chunks(), rows["objects"].combine_chunks()
    is_known = pc.is_in(pc.list_flatten(names), pa.array(list(labels), pa.string()))
    is_single = pc.invert(pc.struct_field(pc.list_flatten(things), "is_crowd"))
    parents = pc.list_parent_indices(names).to_numpy()
    some = pc.and_(is_known, is_single).to_numpy(zero_copy_only=False)
    return np.bincount(parents[some], minlength=len(rows)).astype(np.int64)


def evaluation_views(rows: pa.Table, size: int) -> Iterator[View]:
    """Yield a view of each example in which its longer side is that of the square."""
    for row in rows.to_pylist():
        width, height = row["size"]
        image = decode_stored(row["images"][0], row["example_id"])
        yield evaluation_view(image, size, (height, width))


def evaluation_view(image: Pixels, size: int, annotated: tuple[int, int] | None = None) -> View:
    """Return the view of an image in which its longer side is that of the square.

    Args:
        image: (height, width, 3).
        size: side of the square.
        annotated: height and width to which what is found shall refer; None takes the image's.
    """
    cut = fitted(image.shape[1], image.shape[0], size)
    width, height = cut.seen
    return View(cut.pixels(image), (height, width), annotated or image.shape[:2], None)


def batch_of(batch: TaskBatch, views: Sequence[View]) -> TaskBatch:
    """Return a batch with the pixels of views."""
    return replace(
        batch,
        pixels=torch.from_numpy(np.stack([view.pixels for view in views])[:, None]),
        seen=[view.seen for view in views],
        annotated=[view.annotated for view in views],
    )


def targets_of(views: Sequence[View]) -> Targets:
    """Return the objects of a batch."""
    some = [view.objects for view in views if view.objects is not None]
    fields = zip(*(vars(objects).values() for objects in some), strict=True)
    return Targets(Objects(*map(torch.cat, fields)), tuple(map(len, some)))


def _view(cut: ScaledCut, image: Pixels, row: Mapping[str, Any], objects: Objects | None) -> View:
    (width, height), (seen_width, seen_height) = row["size"], cut.seen
    return View(cut.pixels(image), (seen_height, seen_width), (height, width), objects)


def _objects(
    cut: ScaledCut, row: Mapping[str, Any], labels: Mapping[str, int], with_masks: bool
) -> Objects:
    """Return the objects that can still be seen; of one with a mask, the box is the mask's."""
    annotated = row["size"]
    side = cut.size if with_masks else 0
    boxes, classes, masks, has_mask = [], [], [], []
    for thing, name in zip(row["objects"], row["labels"], strict=True):
        if thing["is_crowd"] or name not in labels:
            continue
        x, y, width, height = thing["box"]
        corners = np.array([[x, y, x + width, y + height]], np.float32)
        box = cut.boxes(corners, *annotated)[0]
        mask = np.zeros((side, side), bool)
        if with_masks and thing["mask"]:
            mask = cut.mask(mask_of(thing["mask"], *annotated))
            box = _box_of(mask)
        if min(box[2] - box[0], box[3] - box[1]) < _SMALLEST:
            continue
        boxes.append(box)
        classes.append(labels[name])
        masks.append(mask)
        has_mask.append(with_masks and bool(thing["mask"]))
    return Objects(
        torch.from_numpy(np.array(boxes, np.float32).reshape(-1, 4)),
        torch.tensor(classes, dtype=torch.long),
        torch.from_numpy(np.array(masks, bool).reshape(len(masks), side, side)),
        torch.tensor(has_mask, dtype=torch.bool),
    )


def _box_of(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return np.zeros(4, np.float32)
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
