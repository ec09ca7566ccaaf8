"""Objects with boxes and masks in COCO's JSON, as COCO and Objects365 publish it, and own data.

Format: https://cocodataset.org/#format-data, "object detection". An object has ``images``
(``id``, ``file_name``, ``width``, ``height``), ``annotations`` (``id``, ``image_id``,
``category_id``, ``bbox`` as x, y, width and height, and if known ``segmentation``, ``iscrowd`` and
``area``) and ``categories`` (``id``, ``name``). Objects365 has no ``segmentation``.

An image is an example, also without any object. Where several images have names that differ in
their folders alone, only these names find them. A box is cut at the border of its image. An
annotation that cannot be used is a reject of its own, ``annotation-<id>``; its image stays.
"""

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np

from dataprep.row_errors import RowError
from dataprep.sources.annotations import (
    MALFORMED_ENTRY,
    AnnotationError,
    check_ends,
    json_elements,
)
from dataprep.tasks.example import (
    REPEATED_ID,
    UNKNOWN_LABEL,
    AnnotatedObject,
    Example,
    bad,
    checked,
    example_of,
    in_nfc,
    problem_of,
)
from dataprep.tasks.image_places import common_spelling
from dataprep.tasks.run_lengths import counts_of, mask_text

BAD_BOX: Final = "bad_box"
"Reason of a reject: the box is not four finite numbers."
EMPTY_BOX: Final = "empty_box"
"Reason of a reject: the box has no area."
BOX_OUTSIDE: Final = "box_outside"
"Reason of a reject: the box lies wholly outside of its image."
UNKNOWN_IMAGE: Final = "unknown_image"
"Reason of a reject: the file lists no image of the annotation's ``image_id``."
_EXPECTED: Final = "COCO's annotations of objects, an object with the list {}"
_IMAGE: Final = {"id": (int,), "file_name": (str,), "width": (int,), "height": (int,)}
_ANNOTATION: Final = {"id": (int,), "image_id": (int,), "category_id": (int,), "bbox": (list,)}
_CATEGORY: Final = {"id": (int,), "name": (str,)}
_LARGEST: Final = 1 << 62
"Ids are held as 64-bit integers."
_LONGEST_SIDE: Final = 1 << 16


def read_categories(path: Path) -> dict[int, str]:
    """Return the names of the categories by id, in the order of the ids, which may have gaps.

    Raises:
        AnnotationError: the file has another format, a category has no name, or two have one id or
            name.
    """
    names: dict[int, str] = {}
    for i, entry in enumerate(_elements(path, "categories")):
        where = f"{path}: categories[{i}]"
        if problem := problem_of(entry, _CATEGORY):
            raise AnnotationError(f"{where}: {problem}")
        id_, name = entry["id"], in_nfc(" ".join(entry["name"].split()))
        if not name:
            raise AnnotationError(f"{where}: the name is empty")
        if id_ in names or name in names.values():
            raise AnnotationError(f"{where}: another category has the id {id_} or the name {name}")
        names[id_] = name
    return dict(sorted(names.items()))


def check_coco_instances(path: Path) -> None:
    """Check in no time that a file can be COCO's JSON; see ``check_ends``.

    Raises:
        AnnotationError: it cannot.
    """
    check_ends(path, _EXPECTED.format("images"))


def read_coco_instances(path: Path, *, is_labeled: bool = True) -> Iterator[Example]:
    """Yield the images of a file with their objects, then the annotations that are rejects.

    Args:
        path: of the file, plain, compressed or in a zip archive.
        is_labeled: False reads no annotations, as test splits have none.

    Raises:
        AnnotationError: the file has another format.
        ListError: no image can be read.
    """
    return checked(_read(path, is_labeled), path)


def _read(path: Path, is_labeled: bool) -> Iterator[Example]:
    images: dict[int, tuple[int, int, str]] = {}
    problems: list[Example] = []
    for i, entry in enumerate(_elements(path, "images")):
        where = f"{path.name}: images[{i}]"
        if problem := problem_of(entry, _IMAGE) or _problem_of_image(entry):
            problems.append(bad(f"entry-{i}", where, MALFORMED_ENTRY, problem))
        elif entry["id"] in images:
            problems.append(bad(str(entry["id"]), where, REPEATED_ID, "the id stands there before"))
        else:
            images[entry["id"]] = (entry["width"], entry["height"], entry["file_name"])
    annotated = _Annotations(path, images) if is_labeled else None
    ends = Counter(map(_end, {name for _, _, name in images.values()}))
    for row, (id_, (width, height, name)) in enumerate(images.items()):
        objects, labels = annotated.of_row(row) if annotated else ((), ())
        example = example_of(
            str(id_), path.name, images=[name], labels=labels, objects=objects, size=(width, height)
        )
        yield replace(example, whole_names=ends[_end(name)] > 1)
    yield from problems
    if annotated:
        yield from annotated.rejects


class _Annotations:
    """The annotations of a file by image, in flat arrays: Objects365 has 25 million."""

    def __init__(self, path: Path, images: Mapping[int, tuple[int, int, str]]) -> None:
        """Read them; ``images`` are (width, height, …) by id, in the order of their rows."""
        self._names = read_categories(path)
        self._images = images
        self._rows_by_id = {id_: row for row, id_ in enumerate(images)}
        self._rows, self._ids, self._labels = array("q"), array("q"), array("q")
        self._boxes, self._areas, self._crowds = array("d"), array("d"), array("b")
        self._masks: list[str] = []
        self.rejects: list[Example] = []
        for i, entry in enumerate(_elements(path, "annotations")):
            id_ = entry.get("id") if isinstance(entry, dict) else None
            name = f"annotation-{id_}" if type(id_) is int else f"annotations-{i}"
            try:
                self._add(entry)
            except RowError as error:
                where = f"{path.name}: annotations[{i}]"
                self.rejects.append(bad(name, where, error.reason, error.detail))
        self._sort(path.name)

    def of_row(self, row: int) -> tuple[tuple[AnnotatedObject, ...], tuple[str, ...]]:
        """Return the objects of an image, in the order of the file, and the class of each."""
        first, stop = np.searchsorted(self._sorted_rows, [row, row + 1])
        index = self._order[first:stop].tolist()
        objects = (
            AnnotatedObject(
                self._ids[i],
                tuple(self._boxes[4 * i : 4 * i + 4]),
                self._areas[i],
                bool(self._crowds[i]),
                self._masks[i],
            )
            for i in index
        )
        return tuple(objects), tuple(self._names[self._labels[i]] for i in index)

    def _add(self, entry: Any) -> None:
        if problem := problem_of(entry, _ANNOTATION):
            raise RowError(MALFORMED_ENTRY, problem)
        if max(map(abs, (entry[key] for key in _ANNOTATION if key != "bbox"))) > _LARGEST:
            raise RowError(MALFORMED_ENTRY, "an id is too large a number")
        row = self._rows_by_id.get(entry["image_id"])
        if row is None:
            raise RowError(UNKNOWN_IMAGE, f"no image has the id {entry['image_id']}")
        if entry["category_id"] not in self._names:
            raise RowError(UNKNOWN_LABEL, f"no category has the id {entry['category_id']}")
        width, height, _ = self._images[entry["image_id"]]
        box = _box(entry["bbox"], width, height)
        mask = mask_text(entry.get("segmentation"), width, height)
        crowd, area = entry.get("iscrowd", 0), entry.get("area")
        if crowd not in (0, 1):
            raise RowError(MALFORMED_ENTRY, f"iscrowd = {crowd!r}, expected 0 or 1"[:200])
        if type(area) not in (int, float) or not 0 <= area < _LARGEST:  # not a number, too
            area = int(counts_of(mask)[1::2].sum()) if mask else box[2] * box[3]
        self._rows.append(row)
        self._ids.append(entry["id"])
        self._labels.append(entry["category_id"])
        self._boxes.extend(box)
        self._areas.append(float(area))
        self._crowds.append(int(crowd))
        self._masks.append(mask)

    def _sort(self, name: str) -> None:
        """Sort by image; of several annotations of one id, all but the first are rejects."""
        ids, rows = (np.array(each, np.int64) for each in (self._ids, self._rows))
        is_first = np.zeros(len(ids), bool)
        is_first[np.unique(ids, return_index=True)[1]] = True
        image_ids = list(self._images)
        for id_, row in zip(ids[~is_first].tolist(), rows[~is_first].tolist(), strict=True):
            detail = f"of the image {image_ids[row]}: another annotation has this id"
            self.rejects.append(bad(f"annotation-{id_}", name, REPEATED_ID, detail))
        kept = np.flatnonzero(is_first)
        self._order = kept[np.argsort(rows[kept], kind="stable")]
        self._sorted_rows = rows[self._order]


def _box(values: list[Any], width: int, height: int) -> tuple[float, float, float, float]:
    """Return x, y, width and height of a box, cut at the border of its image."""
    if len(values) != 4 or not all(type(v) in (int, float) for v in values):
        raise RowError(BAD_BOX, f"bbox = {values!r}, expected four numbers"[:200])
    if not all(abs(value) < _LARGEST for value in values):  # not a number, too
        raise RowError(BAD_BOX, f"bbox = {values!r}, expected finite numbers"[:200])
    x, y, w, h = map(float, values)
    if w <= 0 or h <= 0:
        raise RowError(EMPTY_BOX, f"bbox = {values!r} has no area")
    left, top = max(x, 0.0), max(y, 0.0)
    w, h = min(x + w, float(width)) - left, min(y + h, float(height)) - top
    if w <= 0 or h <= 0:
        raise RowError(BOX_OUTSIDE, f"bbox = {values!r} in an image of {width} x {height} pixels")
    return left, top, w, h


def _problem_of_image(entry: Mapping[str, Any]) -> str | None:
    sides = entry["width"], entry["height"]
    if not all(0 < side <= _LONGEST_SIDE for side in sides):
        return f"width and height are {sides}"[:200]
    if abs(entry["id"]) > _LARGEST:
        return "id is too large a number"
    return None if entry["file_name"].strip() else "file_name is empty"


def _end(name: str) -> str:
    """Return the last part of a path, however it is spelled."""
    return PurePosixPath(common_spelling(name)).name


def _elements(path: Path, key: str) -> Iterator[Any]:
    return json_elements(path, key, _EXPECTED.format(key))
