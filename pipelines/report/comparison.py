"""Committed scores and evaluations side by side.

Two results have the same settings if their stages and all stages before them have the same
parameters and code versions; the seed does not count. Results with the same settings are one row:
its numbers are medians over the seeds.
"""

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from pipelines.finetune.registry import TASKS
from pipelines.finetune.score import PUBLISHED
from pipelines.report.results import SCORE, Result, start_keys
from pipelines.report.scores import is_metric

_METRICS: Final = {
    name: task.metric for task in TASKS for name in get_args(task.model_fields["name"].annotation)
}
"Name of the metric by which each task is judged."


@dataclass(frozen=True)
class Spread:
    """A number over several seeds."""

    median: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Row:
    """The results with one choice of settings."""

    results: Sequence[Result]

    @property
    def first(self) -> Result:
        """A result, for what all of them have in common."""
        return self.results[0]

    @property
    def metric(self) -> str | None:
        """Name of the metric by which the task is judged; None of a pretraining."""
        return _METRICS.get(self.first.task)

    def spread(self, name: str) -> Spread | None:
        """Return a number over the results that have it."""
        values = [r.numbers[name] for r in self.results if name in r.numbers]
        if not values:
            return None
        return Spread(statistics.median(values), min(values), max(values), len(values))

    def names(self) -> list[str]:
        """Return the names of all numbers, in the order of the first result that has each."""
        return list(dict.fromkeys(name for result in self.results for name in result.numbers))

    def listed(self, attribute: str) -> str:
        """Return the values of the results' attribute, each once."""
        values = dict.fromkeys(getattr(result, attribute) for result in self.results)
        return " ".join(str(value) for value in values if value is not None)

    def main_names(self) -> list[str]:
        """Return the metrics that a table shows: the task's own, and those with published ones."""
        return [
            name
            for name in self.names()
            if is_metric(name)
            and (name.partition("/")[2] == self.metric or f"{PUBLISHED}/{name}" in self.names())
        ]


def rows_of(results: Sequence[Result]) -> list[Row]:
    """Return the results as rows; of the same output in several workdirs the first counts.

    Rows are in the order of the workdirs among the results, within one in that of their settings.
    """
    workdirs = {uri: i for i, uri in enumerate(dict.fromkeys(r.workdir for r in results))}
    distinct = {(r.stage, r.fingerprint): r for r in reversed(results)}
    grouped: dict[str, list[Result]] = {}
    for result in sorted(distinct.values(), key=_order):
        grouped.setdefault(_key(result), []).append(result)
    rows = [Row(some) for some in grouped.values()]
    return sorted(rows, key=lambda row: min(workdirs[result.workdir] for result in row.results))


def repeated(results: Sequence[Result]) -> Iterator[str]:
    """Yield a line for each result that ``rows_of`` leaves out, and whether its numbers differ.

    The same settings and seed may give other numbers on another machine, or by other versions.
    """
    first: dict[tuple[str, str], Result] = {}
    for result in results:
        shown = first.setdefault((result.stage, result.fingerprint), result)
        if shown.workdir == result.workdir:
            continue
        names = dict.fromkeys([*shown.numbers, *result.numbers])
        other = [n for n in names if shown.numbers.get(n) != result.numbers.get(n)]
        words = "its numbers are the same"
        if other:
            name = next((n for n in other if is_metric(n)), other[0])
            pair = (_shown(each.numbers.get(name)) for each in (result, shown))
            words = f"{len(other)} of its numbers differ, such as {name}: {' and '.join(pair)}"
        yield (
            f"{result.workdir}: {result.stage}/{result.fingerprint} has the settings and the seed "
            f"of that in {shown.workdir}, which is shown instead; {words}"
        )


def _shown(number: float | None) -> str:
    return "none" if number is None else f"{number:.4g}"


def differing(rows: Sequence[Row]) -> list[str]:
    """Return the settings that differ between rows of one task which both have them."""
    found: dict[str, None] = {}
    for task in dict.fromkeys(row.first.task for row in rows):
        settings = [row.first.settings for row in rows if row.first.task == task]
        for name in dict.fromkeys(name for some in settings for name in some):
            values = {some[name] for some in settings if name in some}
            if len(values) > 1 and name not in start_keys():
                found[name] = None
    return list(found)


def best_on_dev(rows: Sequence[Row]) -> tuple[Row, str] | None:
    """Return the row with the best median of the task's metric on dev, and the metric's name.

    Of equal ones it is the first. None if no row has such a number.
    """
    scored = [
        (spread.median, row, name)
        for row in rows
        if row.first.stage == SCORE
        and (spread := row.spread(name := f"dev/{row.metric}")) is not None
    ]
    if not scored:
        return None
    _, row, name = max(scored, key=lambda item: item[0])
    return row, name


def _key(result: Result) -> str:
    return json.dumps([result.stage, result.task, sorted(result.settings.items())])


def _order(result: Result) -> tuple[Any, ...]:
    """Sort numbers among the settings by value, so that the order is that of a grid."""
    settings = sorted(result.settings.items())
    values = [(name, *_comparable(value)) for name, value in settings]
    return result.stage, result.task, result.start, values, result.seed or 0, result.fingerprint


def _comparable(value: str) -> tuple[int, float, str]:
    try:
        return 0, float(value), value
    except ValueError:
        return 1, 0.0, value
