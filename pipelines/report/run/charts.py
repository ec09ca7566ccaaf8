"""Figures as SVG: their coordinates, which ``charts.html`` draws."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pipelines.training.points import Points

WIDTH: Final = 360
HEIGHT: Final = 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 10, 8, 22
"Margins around the plotted area, in pixels."
_NUM_TICKS: Final = 4
_COLORS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
"Colors that people with defective color vision tell apart (Okabe and Ito)."


@dataclass(frozen=True)
class Tick:
    """A labeled position on an axis."""

    at: float
    "Pixels from the left or from the top."
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


@dataclass(frozen=True)
class Chart:
    """Curves over the steps of a training."""

    title: str
    unit: str
    lines: Sequence[Line]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]


@dataclass(frozen=True)
class Whisker:
    """A value with its interval on a common scale."""

    title: str
    at: float
    low: float
    high: float
    "Percent of the width."
    words: str


@dataclass(frozen=True)
class Whiskers:
    """Values with intervals, and where zero lies, in percent of the width."""

    rows: Sequence[Whisker]
    zero: float


def line_chart(
    title: str,
    unit: str,
    points: Points,
    names: Mapping[str, str],
    colors: Mapping[str, str] | None = None,
) -> Chart | None:
    """Return a chart of some metrics; None if none of them has a value.

    Args:
        title: what the values are.
        unit: of the values.
        points: steps and values of each metric.
        names: metrics to draw, each with its name in the legend.
        colors: of the metrics; others get one by their order.
    """
    shown = {name: points[name] for name in names if name in points and len(points[name][0])}
    if not shown:
        return None
    steps = [step for curve in shown.values() for step in curve[0]]
    values = [value for curve in shown.values() for value in curve[1]]
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
    for i, (name, curve) in enumerate(shown.items()):
        places = [(x(step), y(value)) for step, value in zip(*curve, strict=True)]
        lines.append(
            Line(
                names[name],
                (colors or {}).get(name, _COLORS[i % len(_COLORS)]),
                " ".join(f"{left:g},{top:g}" for left, top in places),
                short(curve[1][-1]),
                places[0] if len(places) == 1 else None,
            )
        )
    x_ticks = [
        Tick(x(step), f"{step:,.0f}") for step in nice_ticks(first, last) if first <= step <= last
    ]
    return Chart(title, unit, lines, x_ticks, [Tick(y(value), short(value)) for value in ticks])


def whiskers(rows: Sequence[tuple[str, float, float, float, str]]) -> Whiskers | None:
    """Return intervals on a common scale that holds zero; None without rows.

    Args:
        rows: title, value, low and high end, and words of each.
    """
    if not rows:
        return None
    low = min(0.0, *(row[2] for row in rows))
    high = max(0.0, *(row[3] for row in rows))
    margin = 0.05 * max(high - low, 1e-9)
    low, width = low - margin, high - low + 2 * margin

    def at(value: float) -> float:
        return round(100 * (value - low) / width, 2)

    return Whiskers(
        [Whisker(title, at(v), at(a), at(b), words) for title, v, a, b, words in rows], at(0.0)
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
