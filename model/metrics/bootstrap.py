"""The percentile interval of a ratio of sums, by resampling the samples that the sums run over.

Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. The samples, such as
image-text pairs, are drawn with replacement; the predictions within one stay together, as they are
not independent.
"""

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from model.training import randomness

LEVEL: Final = 0.95
"Fraction of the resamples whose ratio is within the interval."
NUM_RESAMPLES: Final = 2000
_CHUNK: Final = 1 << 22
"Largest number of drawn counts in memory."


def ratio_interval(sums: ArrayLike, counts: ArrayLike, seed: int) -> tuple[float, float]:
    """Return the interval of ``sum(sums) / sum(counts)`` at the level ``LEVEL``.

    Args:
        sums: (n,) of each sample, such as its number of correct predictions.
        counts: (n,) positive, of each sample, such as its number of predictions.
        seed: of the draws.

    Raises:
        ValueError: there are no samples, the lengths differ, or a count is not positive.
    """
    of_sums, of_counts = np.asarray(sums, np.float64), np.asarray(counts, np.float64)
    if of_sums.shape != of_counts.shape or of_sums.ndim != 1 or not len(of_sums):
        raise ValueError(
            f"sums has shape {of_sums.shape} and counts {of_counts.shape}; both need one value for "
            "each of at least one sample"
        )
    if (of_counts <= 0).any():
        raise ValueError(f"counts has {of_counts.min():g}; leave samples without predictions out")
    number = len(of_sums)
    generator = randomness.generator(seed, number)
    ratios: list[NDArray[np.float64]] = []
    left = NUM_RESAMPLES
    while left:
        some = min(left, max(_CHUNK // number, 1))
        drawn = generator.multinomial(number, np.full(number, 1 / number), size=some)
        ratios.append((drawn @ of_sums) / (drawn @ of_counts))
        left -= some
    low, high = np.quantile(np.concatenate(ratios), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
