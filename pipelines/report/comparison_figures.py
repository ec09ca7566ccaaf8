"""Figures of a comparison as coordinates, which a template draws as SVG.

A figure is as wide as a narrow screen, so that its text has one size everywhere and a wide screen
shows several side by side.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pipelines.report.intervals import Estimate
from pipelines.training.points import Points

WIDTH: Final = 350
_LEFT: Final = 44
_RIGHT: Final = 12
_ROW: Final = 26
_TOP: Final = 8
_BOTTOM: Final = 30
_CURVE_HEIGHT: Final = 210
_NUM_TICKS: Final = 5
COLORS: Final = ("#2f6db3", "#c9564a", "#4a8f5c", "#8a63b5", "#b8862b", "#3c9aa3", "#b05384")
"Colors of the variants in their order, repeated after the last one."


@dataclass(frozen=True)
class Tick:
    """A mark of an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Mark:
    """The numbers of one variant on an axis."""

    y: float
    number: int
    "Number of the variant, from 1."
    color: str
    mean: float
    low: float | None
    high: float | None
    dots: Sequence[tuple[float, str]]
    "Position of each run, and its words."


@dataclass(frozen=True)
class IntervalFigure:
    """Mean, interval and single runs of each variant that has the number."""

    height: float
    ticks: Sequence[Tick]
    marks: Sequence[Mark]
    zero: float | None
    "Position of 0, if it lies on the axis."


@dataclass(frozen=True)
class Line:
    """The curve of one variant."""

    color: str
    path: str
    "Points of the mean, as SVG has them."
    band: str
    "Outline from the smallest to the largest run; empty of one run."


@dataclass(frozen=True)
class CurveFigure:
    """A metric over the steps of the trainings."""

    name: str
    height: float
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    lines: Sequence[Line]


def color_of(index: int) -> str:
    """Return the color of a variant."""
    return COLORS[index % len(COLORS)]


def interval_figure(
    found: Mapping[int, tuple[Estimate, Sequence[tuple[float, str]]]],
) -> IntervalFigure | None:
    """Return the figure of one number, or None if no variant has it.

    Args:
        found: by index of the variant: its estimate, and value and words of each of its runs.
    """
    if not found:
        return None
    values = [
        value
        for estimate, runs in found.values()
        for value in (estimate.mean, estimate.low, estimate.high, *(value for value, _ in runs))
        if value is not None
    ]
    scale = _Scale(values, _LEFT, WIDTH - _RIGHT)
    marks = [
        Mark(
            _TOP + (i + 0.5) * _ROW,
            index + 1,
            color_of(index),
            scale(estimate.mean),
            None if estimate.low is None else scale(estimate.low),
            None if estimate.high is None else scale(estimate.high),
            [(scale(value), words) for value, words in runs],
        )
        for i, (index, (estimate, runs)) in enumerate(found.items())
    ]
    zero = scale(0) if scale.low <= 0 <= scale.high else None
    return IntervalFigure(_TOP + len(marks) * _ROW + _BOTTOM, scale.ticks(), marks, zero)


def curve_figure(name: str, curves: Mapping[int, Sequence[Points]]) -> CurveFigure | None:
    """Return the figure of a metric over the steps, or None if no run has it.

    Args:
        name: name of the metric in the histories.
        curves: by index of the variant: the history of each of its runs.
    """
    bands = {
        index: _spread([points[name] for points in some if name in points])
        for index, some in curves.items()
    }
    steps = [step for band in bands.values() for step, *_ in band]
    if not steps:
        return None
    height = _CURVE_HEIGHT
    x = _Scale([0, *steps], _LEFT, WIDTH - _RIGHT, margin=0)
    values = [value for band in bands.values() for _, *some in band for value in some]
    y = _Scale(values, height - _BOTTOM, _TOP)
    lines = []
    for index, band in bands.items():
        if not band:
            continue
        mean = [(x(step), y(middle)) for step, middle, _, _ in band]
        low = [(x(step), y(value)) for step, _, value, _ in band]
        high = [(x(step), y(value)) for step, _, _, value in band]
        outline = _path([*low, *reversed(high)]) if low != high else ""
        lines.append(Line(color_of(index), _path(mean), outline))
    return CurveFigure(name, height, x.ticks(), y.ticks(), lines)


def _spread(
    curves: Sequence[tuple[Sequence[float], Sequence[float]]],
) -> list[tuple[float, float, float, float]]:
    """Return step, mean, smallest and largest value at each step that every run has."""
    found: dict[float, list[float]] = {}
    for steps, values in curves:
        for step, value in zip(steps, values, strict=True):
            found.setdefault(step, []).append(value)
    return [
        (step, statistics.fmean(some), min(some), max(some))
        for step, some in sorted(found.items())
        if len(some) == len(curves)
    ]


class _Scale:
    """Maps values linearly to coordinates."""

    def __init__(self, values: Iterable[float], start: float, end: float, margin: float = 0.06):
        known = list(values)
        low, high = min(known), max(known)
        room = (high - low) * margin or (0 if high > low else abs(high) * 0.1 or 1.0)
        self.low, self.high = low - room, high + room
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        part = (value - self.low) / (self.high - self.low)
        return round(self._start + part * (self._end - self._start), 1)

    def ticks(self) -> list[Tick]:
        """Return round values on the axis: 1, 2 or 5 times a power of ten apart."""
        rough = (self.high - self.low) / _NUM_TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        values = [number * step for number in range(first, last + 1)]
        return [Tick(self(value), f"{value:.6g}") for value in values]


def _path(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)
