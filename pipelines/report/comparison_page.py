"""A comparison as one page: intervals over seeds, differences to the first variant, curves."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestration.errors import RecipeError
from pipelines.report.charts import Chart, Interval, Whiskers, band_chart, color_of, whiskers
from pipelines.report.comparison import Row, differing
from pipelines.report.intervals import (
    Estimate,
    difference,
    estimate_of,
    main_metrics,
    values_of,
)
from pipelines.report.page import render
from pipelines.report.results import Result, short
from pipelines.training.points import Points

_CURVES = ("loss", "accuracy/", "dev/")
"Beginnings of the names in a history that are drawn."
_MAX_LABEL = 60


@dataclass(frozen=True)
class Variant:
    """A row of the comparison under its name."""

    label: str
    row: Row


@dataclass(frozen=True)
class Line:
    """What a metric is in one variant."""

    number: int
    label: str
    count: int
    estimate: Estimate | None
    difference: Estimate | None
    "To the first variant of the table; None of that one, or if either has no value."
    note: str
    "What is missing."


@dataclass(frozen=True)
class MetricPart:
    """The part of the page about one metric."""

    name: str
    shown: Whiskers | None
    "None if no variant has a value."
    lines: Sequence[Line]


def labeled(rows: Sequence[Row]) -> list[Variant]:
    """Return rows under the settings in which they differ, cut off after some characters."""
    keys = differing(rows)
    ends = [key.rpartition(".")[2] for key in keys]
    names = {k: end if ends.count(end) == 1 else k for k, end in zip(keys, ends, strict=True)}
    starts = len({row.first.start for row in rows}) > 1
    found = []
    for row in rows:
        own = row.first.settings
        words = [row.first.start] if starts else []
        words += [f"{names[key]}={short(own[key])}" for key in keys if key in own]
        label = ", ".join(words) or row.first.task
        cut = label if len(label) <= _MAX_LABEL else f"{label[: _MAX_LABEL - 1]}…"
        found.append(Variant(cut, row))
    return found


def chosen_metrics(rows: Sequence[Row], chosen: Sequence[str]) -> list[str]:
    """Return the chosen metrics, or the main ones if none is chosen.

    Raises:
        RecipeError: no row has a chosen metric.
    """
    known = list(dict.fromkeys(name for row in rows for name in row.names()))
    for name in chosen:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            words = f"did you mean {' or '.join(near)}?" if near else ", ".join(known)
            raise RecipeError(f"metric {name}: no result has it; {words}")
    return list(dict.fromkeys(chosen)) or main_metrics(rows)


def metric_part(variants: Sequence[Variant], name: str) -> MetricPart:
    """Return what is said of a metric, of results of the kinds that have it."""
    kinds = {_kind(variant.row) for variant in variants if values_of(variant.row, name)}
    shown = [(i, v) for i, v in enumerate(variants, start=1) if _kind(v.row) in kinds]
    lines, drawn = [], []
    for number, variant in shown:
        row = variant.row
        values = values_of(row, name)
        estimate = estimate_of(values) if values else None
        if estimate is not None:
            single = [
                (r.numbers[name], f"{_run_words(r)}: {r.numbers[name]:.4f}")
                for r in row.results
                if r.numbers.get(name) in values
            ]
            drawn.append(
                Interval(
                    str(number),
                    estimate.mean,
                    estimate.low,
                    estimate.high,
                    color=color_of(number - 1),
                    single=single,
                )
            )
        first = shown[0][1].row
        other = difference(row, first, name) if row is not first else None
        note = _note(len(values), len(row.results))
        lines.append(Line(number, variant.label, len(values), estimate, other, note))
    return MetricPart(name, whiskers(drawn, with_zero=False), lines)


def comparison_page(
    title: str,
    variants: Sequence[Variant],
    metrics: Sequence[str],
    curves: Mapping[tuple[str, str], Points],
    lost: Sequence[str] = (),
) -> str:
    """Return the page.

    Args:
        title: title of the page.
        variants: what is compared; the first one is what the others are compared with.
        metrics: names of the numbers to show.
        curves: history of the training of each result, by workdir and fingerprint.
        lost: what of the curves is lost, a line each.
    """
    rows = [variant.row for variant in variants]
    keys = differing(rows)
    return render(
        "comparison.html",
        title=title,
        variants=[
            (number, color_of(number - 1), variant.label, variant.row)
            for number, variant in enumerate(variants, start=1)
        ],
        settings=[(key, [short(row.first.settings.get(key, "")) for row in rows]) for key in keys],
        parts=[metric_part(variants, name) for name in metrics],
        curves=_curve_charts(rows, metrics, curves),
        lost=lost,
    )


def _kind(row: Row) -> tuple[str, str]:
    return row.first.stage, row.first.task


def _curve_charts(
    rows: Sequence[Row], metrics: Sequence[str], curves: Mapping[tuple[str, str], Points]
) -> list[Chart]:
    """Return a chart for each metric of the histories that is chosen, and for each loss."""
    found = {
        str(number): [curves.get((r.workdir, r.fingerprint), {}) for r in row.results]
        for number, row in enumerate(rows, start=1)
    }
    names = list(dict.fromkeys(name for some in found.values() for each in some for name in each))
    shown = [name for name in names if name.startswith(_CURVES)]
    shown.sort(key=lambda name: (name not in metrics, name.startswith("loss"), name))
    charts = [band_chart(name, "over the optimizer steps", found) for name in shown]
    return [chart for chart in charts if chart is not None]


def _run_words(result: Result) -> str:
    return "one run" if result.seed is None else f"seed {result.seed}"


def _note(found: int, runs: int) -> str:
    if not found:
        return "no run has this number"
    words = [f"missing in {runs - found} of {runs} runs"] if found < runs else []
    if found == 1:
        words.append("one run: no interval")
    return "; ".join(words)
