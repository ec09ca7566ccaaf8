"""Means over seeds with 95% confidence intervals, and differences between rows of a comparison.

The interval of a mean over n seeds is Student's t with n - 1 degrees of freedom. Of two rows with
seeds in common, the differences of runs with the same seed are such a sample: such runs have the
same first weights, order and masks as far as their settings allow, and what both owe to them
cancels. Rows with other seeds are compared by Welch's interval, which does not assume equal
variances. Both take the seeds as a sample of all seeds; the data are the same for all of them.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.report.comparison import Row
from pipelines.report.results import EVALUATE

LEVEL = 0.95
"Confidence level of every interval."
_MAIN = ("grounding/words/gap", "grounding/patches/gap", "accuracy/knn", "accuracy/probe")
_OBJECTIVES = ("mlm", "mim", "mvlm_text", "mvlm_image")


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval; ``low`` and ``high`` are None where one value gives none."""

    mean: float
    low: float | None
    high: float | None
    count: int
    "Number of values."
    how: str = ""
    "How two rows were compared."

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside the interval."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


def estimate_of(values: Sequence[float], how: str = "") -> Estimate:
    """Return the mean of values and Student's interval."""
    mean, count = statistics.fmean(values), len(values)
    if count == 1:
        return Estimate(mean, None, None, 1, how)
    return _around(mean, statistics.stdev(values) / math.sqrt(count), count - 1, count, how)


def difference(row: Row, first: Row, name: str) -> Estimate | None:
    """Return by how much a number of a row exceeds that of another; None if either has none."""
    own, other = by_seed(row, name), by_seed(first, name)
    values, others = values_of(row, name), values_of(first, name)
    if not values or not others:
        return None
    if own is not None and other is not None and (both := [s for s in own if s in other]):
        pairs = [own[seed] - other[seed] for seed in both]
        if len(pairs) > 1 or min(len(values), len(others)) == 1:
            return estimate_of(pairs, "paired by seed")
    mean = statistics.fmean(values) - statistics.fmean(others)
    if min(len(values), len(others)) == 1:
        return Estimate(mean, None, None, 1, "other seeds")
    squares = [statistics.variance(some) / len(some) for some in (values, others)]
    total = sum(squares)
    counts = (len(values) - 1, len(others) - 1)
    parts = sum(square**2 / count for square, count in zip(squares, counts, strict=True))
    freedom = total**2 / parts if parts else sum(counts)
    smaller = min(len(values), len(others))
    return _around(mean, math.sqrt(total), freedom, smaller, "other seeds, Welch")


def values_of(row: Row, name: str) -> list[float]:
    """Return a number of each result that has it and in which it is finite."""
    found = (result.numbers.get(name, math.nan) for result in row.results)
    return [value for value in found if math.isfinite(value)]


def by_seed(row: Row, name: str) -> Mapping[int, float] | None:
    """Return a number by seed; None if a seed is not known or stands twice."""
    some = [r for r in row.results if math.isfinite(r.numbers.get(name, math.nan))]
    found = {result.seed: result.numbers[name] for result in some if result.seed is not None}
    return found if len(found) == len(some) else None


def main_metrics(rows: Sequence[Row]) -> list[str]:
    """Return the numbers that are compared if none are chosen, as far as some row has them."""
    names = list(_MAIN[:2]) + [f"accuracy/{name}" for name in _OBJECTIVES] + list(_MAIN[2:])
    known = {name for row in rows if row.first.stage == EVALUATE for name in row.names()}
    found = [name for name in names if name in known]
    scores = [name for row in rows if row.first.stage != EVALUATE for name in row.main_names()]
    return list(dict.fromkeys([*found, *scores]))


def _around(mean: float, error: float, freedom: float, count: int, how: str) -> Estimate:
    from scipy.stats import t  # takes a second to import

    half = float(t.ppf((1 + LEVEL) / 2, freedom)) * error
    return Estimate(mean, mean - half, mean + half, count, how)
