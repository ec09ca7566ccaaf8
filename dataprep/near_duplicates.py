"""Images that look alike: pairs of perceptual hashes that differ in a few bits.

Comparing every pair is out of reach for millions of images. The 64 bits are cut into
``max_bits + agreeing`` bands: two hashes that differ in at most ``max_bits`` bits agree in at least
``agreeing`` whole bands, so it is enough to compare those that agree in some choice of bands
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
_MOST_IN_A_BUCKET: Final = 2048
"Beyond it a hash is compared with so many neighbors only: flat images hash by the thousand."
_SPARE_BITS: Final = 4
"Buckets of about two to the power of this many hashes are cheap enough."


def near_pairs(hashes: Hashes, max_bits: int) -> NDArray[np.int64]:
    """Return (P, 2) row numbers, the smaller first, of hashes at most ``max_bits`` bits apart."""
    found = [np.empty((0, 2), np.int64)]
    for mask in _masks(max_bits, len(hashes)):
        order = np.argsort(hashes & mask, kind="stable")
        keys = (hashes & mask)[order]
        places = np.arange(len(keys))
        for step in range(1, min(_MOST_IN_A_BUCKET, len(keys))):
            places = places[places < len(keys) - step]
            places = places[keys[places] == keys[places + step]]
            if not len(places):
                break
            pairs = np.stack([order[places], order[places + step]], 1)
            apart = np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]])
            found.append(np.sort(pairs[apart <= max_bits], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _masks(max_bits: int, number: int) -> Iterator[np.uint64]:
    """Yield the bits that must agree, for every choice of bands."""
    wanted = max(math.log2(max(number, 2)) - _SPARE_BITS, 1)
    agreeing = next(
        r for r in itertools.count(1) if _BITS * r // (max_bits + r) >= wanted or r == max_bits + 1
    )
    bands = max_bits + agreeing
    edges = [_BITS * i // bands for i in range(bands + 1)]
    masks = [((1 << stop) - (1 << start)) for start, stop in itertools.pairwise(edges)]
    for chosen in itertools.combinations(masks, agreeing):
        yield np.uint64(sum(chosen))
