"""A comparison as tables for the terminal, and as CSV."""

import csv
import io
from collections.abc import Iterator, Sequence

from rich.markup import escape
from rich.table import Table

from pipelines.finetune.score import PUBLISHED
from pipelines.report.comparison import Row, Spread, differing
from pipelines.report.comparison_page import MetricPart
from pipelines.report.intervals import Estimate, estimate_of, values_of
from pipelines.report.results import EVALUATE, SCORE, short
from pipelines.report.scores import decimal


def comparison_tables(rows: Sequence[Row]) -> Iterator[Table]:
    """Yield a table of the scores and one of the evaluations, as far as there are any."""
    for stage, table_of in ((SCORE, _scores), (EVALUATE, _evaluations)):
        if some := [row for row in rows if row.first.stage == stage]:
            yield table_of(some)


def intervals_table(parts: Sequence[MetricPart]) -> Table:
    """Return a table of means over seeds, 95% intervals and differences to the first variant."""
    title = "means over seeds with 95% intervals, and differences to the first variant"
    table = Table(title=title, title_justify="left")
    for column in ("metric", "variant"):
        table.add_column(column, overflow="fold")
    for column in ("runs", "mean", "interval", "difference", "interval"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    for part in parts:
        for i, line in enumerate(part.lines):
            other = line.difference
            compared = [other.how] if other is not None and other.low is not None else []
            table.add_row(
                part.name if i == 0 else "",
                escape(f"{line.number}: {line.label}"),
                str(line.count),
                *_estimate_words(line.estimate),
                *_estimate_words(other),
                "; ".join([*compared, *filter(None, [line.note])]),
                end_section=i == len(part.lines) - 1,
            )
    return table


def spread_words(spread: Spread | None) -> str:
    """Return a number over several seeds, as in ``0.7012 (0.6991–0.7040)``."""
    if spread is None:
        return ""
    if spread.count == 1:
        return _number(spread.median)
    return f"{_number(spread.median)} ({_number(spread.low)}–{_number(spread.high)})"


def to_csv(rows: Sequence[Row]) -> str:
    """Return every number of every row: median, range, mean, interval, and the published one."""
    settings = differing(rows)
    names = list(dict.fromkeys(name for row in rows for name in row.names()))
    measured = [name for name in names if not name.startswith(f"{PUBLISHED}/")]
    published = [name for name in names if name not in measured]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    kinds = ("", " min", " max", " mean", " low95", " high95")
    ranges = [f"{name}{kind}" for name in measured for kind in kinds]
    writer.writerow(
        ["stage", "task", "start", *settings, "num_seeds", "seeds", "workdirs", *ranges, *published]
    )
    for row in rows:
        cells = [row.first.stage, row.first.task, row.first.start]
        cells += [row.first.settings.get(name, "") for name in settings]
        cells += [str(len(row.results)), row.listed("seed"), row.listed("workdir")]
        for name in measured:
            spread = row.spread(name)
            cells += [""] * len(kinds) if spread is None else _exact(spread, values_of(row, name))
        found = [row.spread(name) for name in published]
        cells += ["" if spread is None else repr(spread.median) for spread in found]
        writer.writerow(cells)
    return file.getvalue()


def _scores(rows: Sequence[Row]) -> Table:
    """Return a table with a line for each row: its settings, and its main metrics."""
    columns: dict[str, list[str]] = {
        "task": [row.first.task for row in rows],
        "start": [row.first.start for row in rows],
    }
    common = [f"{name} {some[0]}" for name, some in columns.items() if len(set(some)) == 1]
    columns = {name: some for name, some in columns.items() if len(set(some)) > 1}
    for name in differing(rows):
        columns[name] = [short(row.first.settings.get(name, "")) for row in rows]
    table = Table(title=escape(", ".join(["scores", *common])), title_justify="left")
    for name in columns:
        table.add_column(escape(name), overflow="fold")
    columns["seeds"] = [str(len(row.results)) for row in rows]
    table.add_column("seeds", justify="right")
    for name in dict.fromkeys(name for row in rows for name in row.main_names()):
        columns[name] = [spread_words(row.spread(name)) for row in rows]
        table.add_column(name, justify="right", overflow="fold", min_width=_longest(columns[name]))
        given = [row.spread(f"{PUBLISHED}/{name}") for row in rows]
        if any(given):
            columns[f"{PUBLISHED}/{name}"] = [decimal(g.median) if g else "" for g in given]
            table.add_column("published", justify="right")
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*map(escape, cells))
    return table


def _evaluations(rows: Sequence[Row]) -> Table:
    """Return a table with a column for each row, as an evaluation has many numbers."""
    table = Table("evaluation", title="evaluations", title_justify="left")
    for i in range(len(rows)):
        table.add_column(str(i + 1), justify="right", overflow="fold")
    table.add_row("workdirs", *(escape(row.listed("workdir")) for row in rows))
    table.add_row("start", *(escape(row.first.start) for row in rows))
    for name in differing(rows):
        table.add_row(
            escape(name), *(escape(short(row.first.settings.get(name, ""))) for row in rows)
        )
    table.add_row("seeds", *(str(len(row.results)) for row in rows), end_section=True)
    for name in dict.fromkeys(name for row in rows for name in row.names()):
        table.add_row(name, *(spread_words(row.spread(name)) for row in rows))
    return table


def _longest(cells: Sequence[str]) -> int:
    """Return the length of the longest word, below which a column would break it."""
    return max((len(word) for cell in cells for word in cell.split()), default=0)


def _exact(spread: Spread, values: Sequence[float]) -> list[str]:
    found: list[float | None] = [spread.median, spread.low, spread.high]
    if values:
        estimate = estimate_of(values)
        found += [estimate.mean, estimate.low, estimate.high]
    cells = ["" if value is None else repr(value) for value in found]
    return [*cells, *[""] * (6 - len(cells))]


def _estimate_words(estimate: Estimate | None) -> tuple[str, str]:
    if estimate is None:
        return "", ""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.mean:.4f}", ""
    return f"{estimate.mean:.4f}", f"{estimate.low:.4f} to {estimate.high:.4f}"


def _number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) and abs(value) > 1 else f"{value:.4f}"
