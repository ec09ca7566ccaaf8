"""Pairs of perceptual hashes that differ in few bits: images that look alike.

Comparing every pair of millions of images would take too long. The bits are cut into
``max_bits + agreeing`` bands: two hashes that differ in at most ``max_bits`` bits agree in at least
``agreeing`` whole bands, so only hashes that agree in some choice of bands are compared
(multi-index hashing, Norouzi et al. 2012).
"""

import itertools
import math
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
_BITS: Final = 64
_MAX_NEIGHBORS: Final = 2048
"Largest number of bucket neighbors that a hash is compared with; flat images fill huge buckets."
_SPARE_BITS: Final = 4
"Base-2 logarithm of the bucket size aimed at."


def near_pairs(hashes: Hashes, max_bits: int) -> NDArray[np.int64]:
    """Return (P, 2) row numbers, the smaller first, of hashes at most ``max_bits`` bits apart."""
    found = [np.empty((0, 2), np.int64)]
    for mask in _masks(max_bits, len(hashes)):
        order = np.argsort(hashes & mask, kind="stable")
        keys = (hashes & mask)[order]
        first = np.arange(len(keys))
        for step in range(1, min(_MAX_NEIGHBORS, len(keys))):
            first = first[first < len(keys) - step]
            first = first[keys[first] == keys[first + step]]
            if not len(first):
                break
            pairs = np.stack([order[first], order[first + step]], 1)
            apart = np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]])
            found.append(np.sort(pairs[apart <= max_bits], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _masks(max_bits: int, num_hashes: int) -> Iterator[np.uint64]:
    """Yield a mask of the bits that must agree, for every choice of bands."""
    wanted = max(math.log2(max(num_hashes, 2)) - _SPARE_BITS, 1)
    agreeing = next(
        r for r in itertools.count(1) if _BITS * r // (max_bits + r) >= wanted or r == max_bits + 1
    )
    bands = max_bits + agreeing
    edges = [_BITS * i // bands for i in range(bands + 1)]
    masks = [((1 << stop) - (1 << start)) for start, stop in itertools.pairwise(edges)]
    for chosen in itertools.combinations(masks, agreeing):
        yield np.uint64(sum(chosen))
