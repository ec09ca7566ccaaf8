"""Figures of the pages: their coordinates, which ``charts.html`` draws.

A chart is as wide as a narrow screen, so that its text has one size everywhere and a wide screen
shows several side by side. Intervals are in percent of a width, since words stand beside them.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pipelines.training.points import Points

WIDTH: Final = 360
HEIGHT: Final = 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 10, 8, 22
"Margins around the plotted area, in pixels."
_NUM_TICKS: Final = 4
_MARGIN: Final = 0.05
"Room beside the intervals on their scale, as a fraction of what they cover."
_COLORS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
"Colors that people with defective color vision tell apart (Okabe and Ito)."

Band = Sequence[tuple[float, float, float, float]]
"Step, mean, smallest and largest value."


@dataclass(frozen=True)
class Tick:
    """A labeled position on an axis."""

    at: float
    "Pixels from the left or from the top; percent of the width of a scale."
    label: str


@dataclass(frozen=True)
class Line:
    """One curve."""

    title: str
    color: str
    points: str
    "Coordinates as SVG takes them."
    last: str
    "The last value, for the legend."
    dot: tuple[float, float] | None
    "Its place if there is one value alone."
    band: str
    "Outline from the smallest to the largest values; empty of a single run."


@dataclass(frozen=True)
class Chart:
    """Curves over the steps of a training."""

    title: str
    unit: str
    lines: Sequence[Line]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]


@dataclass(frozen=True)
class Interval:
    """A value to show on a common scale with others."""

    title: str
    value: float
    low: float | None
    high: float | None
    words: str = ""
    color: str = _COLORS[0]
    single: Sequence[tuple[float, str]] = field(default_factory=list)
    "Values that the interval was made of, each with its words."


@dataclass(frozen=True)
class Whisker:
    """An interval's places, in percent of the width."""

    interval: Interval
    at: float
    low: float | None
    high: float | None
    dots: Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Whiskers:
    """Intervals on a common scale, in percent of the width."""

    rows: Sequence[Whisker]
    zero: float | None
    "Where 0 lies, if it is on the scale."
    ticks: Sequence[Tick]


def color_of(index: int) -> str:
    """Return the color of the curve or variant with this number, from 0; they repeat."""
    return _COLORS[index % len(_COLORS)]


def line_chart(
    title: str,
    unit: str,
    points: Points,
    names: Mapping[str, str],
    colors: Mapping[str, str] | None = None,
) -> Chart | None:
    """Return a chart of some metrics of a run; None if none of them has a value.

    Args:
        title: what the values are.
        unit: of the values.
        points: steps and values of each metric.
        names: metrics to draw, each with its name in the legend.
        colors: of the metrics; others get one by their order.
    """
    shown = [name for name in names if name in points and len(points[name][0])]
    return _chart(
        title,
        unit,
        [
            (names[name], (colors or {}).get(name, color_of(i)), _spread([points[name]]))
            for i, name in enumerate(shown)
        ],
    )


def band_chart(title: str, unit: str, curves: Mapping[str, Sequence[Points]]) -> Chart | None:
    """Return a chart of a metric of several runs each; None if no run has it.

    Args:
        title: name of the metric in the histories.
        unit: of the values.
        curves: by name in the legend: the history of each of its runs. All get a color, by their
            order, also where no run has the metric.
    """
    bands = [
        (name, color_of(i), _spread([points[title] for points in some if title in points]))
        for i, (name, some) in enumerate(curves.items())
    ]
    return _chart(title, unit, [each for each in bands if each[2]])


def whiskers(rows: Sequence[Interval], *, with_zero: bool) -> Whiskers | None:
    """Return intervals on a common scale; None without rows.

    Args:
        rows: the intervals.
        with_zero: whether the scale holds 0 even if no interval is near it.
    """
    if not rows:
        return None
    values = [
        value
        for row in rows
        for value in (row.value, row.low, row.high, *(value for value, _ in row.single))
        if value is not None
    ] + [0.0] * with_zero
    low, high = min(values), max(values)
    margin = (high - low) * _MARGIN or abs(high) * _MARGIN or 1.0
    low, high = low - margin, high + margin

    def at(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    return Whiskers(
        [
            Whisker(
                row,
                at(row.value),
                None if row.low is None else at(row.low),
                None if row.high is None else at(row.high),
                [(at(value), words) for value, words in row.single],
            )
            for row in rows
        ],
        at(0.0) if low <= 0 <= high else None,
        [Tick(at(value), short(value)) for value in nice_ticks(low, high) if low <= value <= high],
    )


def nice_ticks(low: float, high: float) -> list[float]:
    """Return a few round numbers that cover the range from ``low`` to ``high``."""
    if high <= low:
        return [low]
    raw = (high - low) / _NUM_TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def short(value: float) -> str:
    """Return a number for a figure, as in ``1.2k`` or ``0.05``."""
    size = abs(value)
    if size and (size < 1e-3 or size >= 1e9):
        return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")
    for limit, letter in ((1e6, "M"), (1e4, "k")):
        if size >= limit:
            return f"{value / (1e3 if letter == 'k' else 1e6):.3g}{letter}"
    return f"{value:.0f}" if size >= 1000 else f"{value:.3g}"


def _chart(title: str, unit: str, curves: Sequence[tuple[str, str, Band]]) -> Chart | None:
    """Return a chart of curves with their names and colors; None without any."""
    if not curves:
        return None
    steps = [step for *_, band in curves for step, *_ in band]
    values = [value for *_, band in curves for _, *some in band for value in some]
    first, last = min(steps), max(steps)
    ticks = nice_ticks(min(values), max(values))
    low, high = min(ticks[0], min(values)), max(ticks[-1], max(values))

    def x(step: float) -> float:
        width = WIDTH - _LEFT - _RIGHT
        return round(_LEFT + width * (step - first) / max(last - first, 1e-9), 1)

    def y(value: float) -> float:
        height = HEIGHT - _TOP - _BOTTOM
        return round(_TOP + height * (high - value) / max(high - low, 1e-12), 1)

    lines = []
    for name, color, band in curves:
        places = [(x(step), y(mean)) for step, mean, _, _ in band]
        below = [(x(step), y(least)) for step, _, least, _ in band]
        above = [(x(step), y(most)) for step, _, _, most in band]
        outline = _path([*below, *reversed(above)]) if below != above else ""
        dot = places[0] if len(places) == 1 else None
        lines.append(Line(name, color, _path(places), short(band[-1][1]), dot, outline))
    x_ticks = [
        Tick(x(step), f"{step:,.0f}") for step in nice_ticks(first, last) if first <= step <= last
    ]
    return Chart(title, unit, lines, x_ticks, [Tick(y(value), short(value)) for value in ticks])


def _spread(curves: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Band:
    """Return the mean, smallest and largest value at each step that every run has."""
    found: dict[float, list[float]] = {}
    for steps, values in curves:
        for step, value in zip(steps, values, strict=True):
            found.setdefault(step, []).append(value)
    return [
        (step, statistics.fmean(some), min(some), max(some))
        for step, some in sorted(found.items())
        if len(some) == len(curves)
    ]


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)
