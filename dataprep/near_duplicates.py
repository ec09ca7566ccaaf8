"""Near duplicates: images that look alike by hash, colors, shape and detail.

Comparing every pair of millions of hashes would take too long. The bits are cut into
``max_bits + agreeing`` bands: two hashes that differ in at most ``max_bits`` bits agree in at least
``agreeing`` whole bands, so only hashes that agree in some choice of bands are compared
(multi-index hashing, Norouzi et al. 2012). ``near_pairs`` searches one choice of bands, and
``choices`` lists them; each pair is found in exactly one.

A hash says where the light and dark parts of an image are, not what they are: small icons on white
have near hashes. ``compare`` therefore also compares a grid of gray values, relative to the images'
own contrast. Where that is low, a few cells show what is there, so no cell may differ much. Noise
decides about bits of the hash of a flat image (``are_flat``), so it is compared with images of its
own hash only.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataprep.image_hashes import GRAY_GRID

Hashes = NDArray[np.uint64]
_BITS: Final = 64
_SPARE_BITS: Final = 4
"Base-2 logarithm of the number of hashes that agree in a choice of bands by chance."
_CELLS: Final = GRAY_GRID**2
_FLAT_SPREAD: Final = (6 * _CELLS) ** 2
"Spread of gray values under which an image is flat: a standard deviation of 6 (0-255)."
_LOW_SPREAD: Final = (12 * _CELLS) ** 2
"Spread under which no cell may differ much: a standard deviation of 12."
_PEAK: Final = 0.4
"Largest difference of such a cell, relative to the standard deviation."
_BLOCK: Final = 1 << 15

APART: Final = 0
"Verdict of ``compare``: colors or aspect ratios differ."
DETAIL_DIFFERS: Final = 1
"Verdict of ``compare``: only the details differ."
ALIKE: Final = 2
"Verdict of ``compare``: near duplicates, if their hashes are near as well."


@dataclass(frozen=True)
class Choice:
    """Bands in which the two hashes of a pair agree, as masks."""

    mask: np.uint64
    "All chosen bands."
    skipped: tuple[np.uint64, ...]
    "Bands before the last chosen one that are not chosen: a pair that agrees in one of them "
    "belongs to an earlier choice."


@dataclass(frozen=True)
class Tolerance:
    """Largest differences of near duplicates."""

    hash_bits: int
    "Bits in which the hashes differ."
    color: int
    "Difference (0-255) of any cell and channel of the color grids."
    aspect: float
    "Relative difference of the aspect ratios."
    detail: float
    "Root mean square difference of the gray grids without their means, relative to the lower "
    "standard deviation."


class Looks(NamedTuple):
    """What N images look like."""

    phash: Hashes
    "(N,) perceptual hashes."
    colors: NDArray[np.uint8]
    "(N, 48) color grids, as in ``dataprep.image_hashes``."
    gray: NDArray[np.uint8]
    "(N, 256) gray grids, as in ``dataprep.image_hashes``."
    width: NDArray[np.int32]
    "(N,) in pixels."
    height: NDArray[np.int32]
    "(N,) in pixels."

    def take(self, rows: NDArray[np.generic]) -> "Looks":
        """Return the looks of some images, by number or by mask."""
        return Looks(*(column[rows] for column in self))


def choices(max_bits: int, num_hashes: int) -> list[Choice]:
    """Return the choices of bands that together find all pairs among this many hashes."""
    wanted = max(math.log2(max(num_hashes, 2)) - _SPARE_BITS, 1)
    agreeing = next(
        r for r in itertools.count(1) if _BITS * r // (max_bits + r) >= wanted or r == max_bits + 1
    )
    num_bands = max_bits + agreeing
    edges = [_BITS * i // num_bands for i in range(num_bands + 1)]
    bands = [((1 << stop) - (1 << start)) for start, stop in itertools.pairwise(edges)]
    return [
        Choice(
            np.uint64(sum(bands[i] for i in chosen)),
            tuple(np.uint64(bands[i]) for i in range(chosen[-1]) if i not in chosen),
        )
        for chosen in itertools.combinations(range(num_bands), agreeing)
    ]


def near_pairs(hashes: Hashes, choice: Choice, max_bits: int) -> tuple[Hashes, int]:
    """Find the pairs of one choice of bands.

    Args:
        hashes: (N,) hashes, each once.
        choice: one of :func:`choices`.
        max_bits: largest number of bits in which the hashes of a pair differ.

    Returns:
        (P, 2) pairs, the smaller hash first, and the number of hashes compared.
    """
    found = [np.empty((0, 2), np.uint64)]
    keys = hashes & choice.mask
    order = np.argsort(keys)
    keys, hashes = keys[order], hashes[order]
    first = np.arange(len(keys))
    num_compared = 0
    for step in range(1, len(keys)):
        first = first[first < len(keys) - step]
        first = first[keys[first] == keys[first + step]]
        if not len(first):
            break
        num_compared += len(first)
        different = hashes[first] ^ hashes[first + step]
        near = np.bitwise_count(different) <= max_bits
        for band in choice.skipped:
            near &= (different & band) != 0
        chosen = first[near]
        found.append(np.sort(np.stack([hashes[chosen], hashes[chosen + step]], 1), axis=1))
    return np.concatenate(found), num_compared


def compare(
    a: Looks,
    b: Looks,
    rows_a: NDArray[np.int64],
    rows_b: NDArray[np.int64],
    tolerance: Tolerance,
) -> NDArray[np.int8]:
    """Compare images whose hashes are near; return a verdict for each pair of rows.

    Args:
        a: looks of the first images.
        b: looks of the second images.
        rows_a: (P,) row numbers in ``a``.
        rows_b: (P,) row numbers in ``b``.
        tolerance: the largest differences.
    """
    verdict = np.full(len(rows_a), APART, np.int8)
    for start in range(0, len(rows_a), _BLOCK):
        some = slice(start, start + _BLOCK)
        verdict[some] = _compare(a.take(rows_a[some]), b.take(rows_b[some]), tolerance)
    return verdict


def are_flat(looks: Looks) -> NDArray[np.bool_]:
    """Return which images have so little contrast that noise decides about bits of their hash."""
    flat = [np.empty(0, bool)]
    for start in range(0, len(looks.gray), _BLOCK):
        gray = looks.gray[start : start + _BLOCK].astype(np.int64)
        flat.append(_spread(gray) < _FLAT_SPREAD)
    return np.concatenate(flat)


def _compare(a: Looks, b: Looks, tolerance: Tolerance) -> NDArray[np.int8]:
    verdict = np.full(len(a.phash), APART, np.int8)
    aspect = np.abs(np.log(a.width / a.height) - np.log(b.width / b.height))
    near = np.flatnonzero(aspect <= np.log1p(tolerance.aspect))
    colors = np.abs(a.colors[near].astype(np.int16) - b.colors[near].astype(np.int16))
    near = near[colors.max(1, initial=0) <= tolerance.color]
    first, second = a.gray[near].astype(np.int64), b.gray[near].astype(np.int64)
    contrast = np.minimum(_spread(first), _spread(second))
    difference = first - second
    same = _spread(difference) <= tolerance.detail**2 * contrast
    deviation = _CELLS * difference - difference.sum(1, keepdims=True)
    same &= (contrast >= _LOW_SPREAD) | (deviation**2 <= _PEAK**2 * contrast[:, None]).all(1)
    verdict[near] = np.where(same, ALIKE, DETAIL_DIFFERS)
    return verdict


def _spread(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the variance of each row, exactly: times the square of the number of columns."""
    result: NDArray[np.int64] = values.shape[1] * (values**2).sum(1) - values.sum(1) ** 2
    return result
