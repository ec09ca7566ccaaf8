"""Masks as COCO writes them: run lengths over columns, as a list of numbers or as text; polygons.

Format: ``mask.py`` and ``maskApi.c`` of https://github.com/cocodataset/cocoapi. Runs alternate
between 0 and 1, beginning with 0, down each column and column by column. As text, each count is
written in groups of five bits, as a difference to the count before the last from the third on.

What a file holds is checked before the C code of ``faster_coco_eval`` gets it: that code reads and
writes out of bounds where the counts do not add up to the image.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dataprep.row_errors import RowError

BAD_MASK: Final = "bad_mask"
"Reason of a reject: the mask is no polygon and no run lengths."
MASK_SIZE: Final = "mask_size"
"Reason of a reject: the mask is of an image of another size."
EMPTY_MASK: Final = "empty_mask"
"Reason of a reject: the mask covers no pixel."
_POINTS: Final = 3
"Fewest points of a polygon; ones of fewer are left out."
_FAR: Final = 2.0
"Polygons end within so many image sides; the C code walks along each edge."
_OUTSIDE: Final = "a polygon lies far outside of the image"
_LONGEST: Final = 1 << 40
"Most pixels of a run, so that an array can hold it."
_FIRST_CHAR: Final = 48
_MORE, _SIGN, _BITS = 0x20, 0x10, 5


def mask_text(segmentation: Any, width: int, height: int) -> str:
    """Return the mask of an annotation as text of run lengths; empty if it has none.

    Args:
        segmentation: value of the key ``segmentation``: a list of polygons, or an object with
            ``counts`` and ``size``; None or an empty list stand for no mask.
        width: of the image.
        height: of the image.

    Raises:
        RowError: the mask cannot be read, is of another size, or is empty.
    """
    if segmentation is None or segmentation == []:
        return ""
    if isinstance(segmentation, dict):
        counts = _counts(segmentation, width, height)
    elif isinstance(segmentation, list):
        counts = counts_of(_drawn(segmentation, width, height))
    else:
        raise RowError(BAD_MASK, f"segmentation is {type(segmentation).__name__}")
    if not counts[1::2].sum():
        raise RowError(EMPTY_MASK, "the mask covers no pixel")
    return text_of(counts)


def counts_of(text: str) -> NDArray[np.int64]:
    """Return the run lengths that a text holds.

    Raises:
        RowError: it is no such text.
    """
    counts: list[int] = []
    value = shift = 0
    for char in text:
        code = ord(char) - _FIRST_CHAR
        if not 0 <= code < 2 * _MORE or shift > 60:
            raise RowError(BAD_MASK, f"{char!r} in the text of run lengths")
        value |= (code & (_MORE - 1)) << shift
        shift += _BITS
        if code & _MORE:
            continue
        if code & _SIGN:
            value -= 1 << shift
        value += counts[-2] if len(counts) > 2 else 0
        if abs(value) > _LONGEST:
            raise RowError(BAD_MASK, f"a run of {value} pixels")
        counts.append(value)
        value = shift = 0
    if shift:
        raise RowError(BAD_MASK, "the text of run lengths ends within a number")
    return np.array(counts, np.int64)


def text_of(counts: NDArray[np.int64]) -> str:
    """Return run lengths as text."""
    chars = bytearray()
    for i, count in enumerate(counts.tolist()):
        value = count - int(counts[i - 2]) if i > 2 else count
        while True:
            code, value = value & (_MORE - 1), value >> _BITS
            is_last = value == (-1 if code & _SIGN else 0)
            chars.append(_FIRST_CHAR + (code if is_last else code | _MORE))
            if is_last:
                break
    return chars.decode()


def mask_of(text: str, width: int, height: int) -> NDArray[np.bool_]:
    """Return the mask (height, width) of a text that :func:`mask_text` or :func:`text_of` made."""
    counts = counts_of(text)
    runs = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return runs.reshape(width, height).T


def text_of_mask(mask: NDArray[np.bool_]) -> str:
    """Return a mask (height, width) as text of run lengths."""
    return text_of_part(mask, 0, 0, mask.shape[1], mask.shape[0])


def text_of_part(part: NDArray[np.bool_], left: int, top: int, width: int, height: int) -> str:
    """Return the mask of an image as text of run lengths.

    Args:
        part: the mask where it is not empty.
        left: columns of the image before the part.
        top: rows of the image above the part.
        width: of the image.
        height: of the image.
    """
    steps = np.diff(np.pad(part.T, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    starts, ends = (
        (left + columns) * height + top + rows
        for columns, rows in (np.nonzero(steps == 1), np.nonzero(steps == -1))
    )
    follows = np.zeros(len(starts), bool)  # a run that the column before begins
    follows[1:] = starts[1:] == ends[:-1]
    borders = np.stack([starts[~follows], ends[~np.roll(follows, -1)]], axis=1).reshape(-1)
    counts = np.diff(np.concatenate([[0], borders, [width * height]]))
    return text_of(counts[:-1] if len(counts) > 1 and not counts[-1] else counts)


def _counts(segmentation: dict[str, Any], width: int, height: int) -> NDArray[np.int64]:
    counts, size = segmentation.get("counts"), segmentation.get("size")
    if not isinstance(counts, str | list):
        raise RowError(BAD_MASK, f"counts = {counts!r}"[:200])
    if size != [height, width]:
        raise RowError(MASK_SIZE, f"size = {size!r}, the image has [{height}, {width}]"[:200])
    if isinstance(counts, list):
        if not all(type(count) is int for count in counts):
            raise RowError(BAD_MASK, "counts are no integers")
        found = _floats(counts, "a run has too many pixels")
    else:
        found = counts_of(counts).astype(np.float64)
    if (found < 0).any() or found.sum() != width * height:
        raise RowError(
            BAD_MASK, f"counts add up to {found.sum():g}, the image has {width * height} pixels"
        )
    return found.astype(np.int64)


def _floats(numbers: list[float], problem: str) -> NDArray[np.float64]:
    """Return numbers as an array.

    Raises:
        RowError: an integer is too large for a float; the detail is ``problem``.
    """
    try:
        return np.array(numbers, np.float64)
    except OverflowError:
        raise RowError(BAD_MASK, problem) from None


def _drawn(polygons: Sequence[Any], width: int, height: int) -> str:
    """Return polygons as text of run lengths; pixels of any of them belong to the mask."""
    from faster_coco_eval.core import mask as masks

    kept = []
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) % 2:
            raise RowError(BAD_MASK, "a polygon is no list of x and y in turn")
        if not all(type(value) in (int, float) for value in polygon):
            raise RowError(BAD_MASK, "a coordinate of a polygon is no number")
        points = _floats(polygon, _OUTSIDE).reshape(-1, 2)
        most = _FAR * np.array([width, height])
        if not ((points >= -most) & (points <= most)).all():  # not a number, too
            raise RowError(BAD_MASK, _OUTSIDE)
        if len(points) >= _POINTS:
            kept.append(points.reshape(-1).tolist())
    if not kept:
        raise RowError(BAD_MASK, f"no polygon has {_POINTS} points")
    text: bytes | str = masks.merge(masks.frPyObjects(kept, height, width))["counts"]
    return text.decode() if isinstance(text, bytes) else text
