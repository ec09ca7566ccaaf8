"""Points of curves: rows of a history as few means, in the memory of the points alone."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
import pyarrow as pa

MAX_POINTS: Final = 2000
"Points of a metric in a figure of its own."
Points = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"Steps and values of each metric."


def points_of(tables: Iterable[pa.Table], last: int, max_points: int = MAX_POINTS) -> Points:
    """Return the finite values of each metric, as means over equal ranges of steps.

    There are at most ``max_points`` of each metric; with fewer steps every row is a point.

    Args:
        tables: rows of a history.
        last: largest step among them.
        max_points: largest number of points of a metric.
    """
    width = -(-last // max_points)
    sums: dict[str, np.ndarray] = {}
    for table in tables:
        steps = table["step"].to_numpy()
        for name in table.column_names[1:]:
            values = table[name].to_numpy()  # absent values are NaN
            finite = np.isfinite(values)
            ranges = (steps[finite] - 1) // width
            weights = (np.ones(len(ranges)), steps[finite], values[finite])
            found = sums.setdefault(name, np.zeros((3, max_points)))
            found += [np.bincount(ranges, weight, max_points) for weight in weights]
    return {name: _means(found) for name, found in sums.items() if found.any()}


def _means(found: np.ndarray) -> tuple[list[float], list[float]]:
    """Return mean steps and mean values of the ranges that have any; (3, ranges) float64."""
    number, steps, values = found[:, found[0] > 0]
    return (steps / number).tolist(), (values / number).tolist()
