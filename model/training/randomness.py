"""Random numbers as pure functions of keys, so that a training has no random state to save.

A key is a tuple of integers such as (seed, step, slot). Elements of a key may be arrays; they
broadcast, so the numbers of a whole batch are drawn at once. The mixing function is the finalizer
of SplitMix64, applied once per element of the key.
"""

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2: Final = np.uint64(0x94D049BB133111EB)


def bits(*keys: ArrayLike) -> NDArray[np.uint64]:
    """Return 64 random bits for each broadcast element of ``keys``."""
    with np.errstate(over="ignore"):
        state = np.asarray(len(keys), np.uint64)
        for key in keys:
            state = _mix(state + np.asarray(key).astype(np.uint64) + _GOLDEN)
    return np.asarray(state, np.uint64)


def uniform(*keys: ArrayLike) -> NDArray[np.float64]:
    """Return a float64 in [0, 1) for each broadcast element of ``keys``."""
    return (bits(*keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def integers(high: ArrayLike, *keys: ArrayLike) -> NDArray[np.int64]:
    """Return an integer in [0, high) for each broadcast element of ``keys``."""
    return (uniform(*keys) * np.asarray(high)).astype(np.int64)


def generator(*keys: int) -> np.random.Generator:
    """Return a generator seeded by the key, for draws of many numbers such as a permutation."""
    return np.random.Generator(np.random.Philox(key=int(bits(*keys))))


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * _MIX_1
    state = (state ^ (state >> np.uint64(27))) * _MIX_2
    return np.asarray(state ^ (state >> np.uint64(31)))
