"""A comparison as tables for the terminal, and as CSV."""

import csv
import io
from collections.abc import Iterator, Sequence

from rich.markup import escape
from rich.table import Table

from pipelines.finetune.score import PUBLISHED
from pipelines.report.comparison import EVALUATE, SCORE, Row, Spread, differing, short
from pipelines.report.scores import decimal


def comparison_tables(rows: Sequence[Row]) -> Iterator[Table]:
    """Yield a table of the scores and one of the evaluations, as far as there are any."""
    for stage, table_of in ((SCORE, _scores), (EVALUATE, _evaluations)):
        if some := [row for row in rows if row.first.stage == stage]:
            yield table_of(some)


def spread_words(spread: Spread | None) -> str:
    """Return a number over several seeds, as in ``0.7012 (0.6991–0.7040)``."""
    if spread is None:
        return ""
    if spread.count == 1:
        return _number(spread.median)
    return f"{_number(spread.median)} ({_number(spread.low)}–{_number(spread.high)})"


def to_csv(rows: Sequence[Row]) -> str:
    """Return every number of every row: its median, its range, and what was published."""
    settings = differing(rows)
    names = list(dict.fromkeys(name for row in rows for name in row.names()))
    measured = [name for name in names if not name.startswith(f"{PUBLISHED}/")]
    published = [name for name in names if name not in measured]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    ranges = [part for name in measured for part in (name, f"{name} min", f"{name} max")]
    writer.writerow(
        ["stage", "task", "start", *settings, "num_seeds", "seeds", "workdirs", *ranges, *published]
    )
    for row in rows:
        cells = [row.first.stage, row.first.task, row.first.start]
        cells += [row.first.settings.get(name, "") for name in settings]
        cells += [str(len(row.results)), _listed(row, "seed"), _listed(row, "workdir")]
        for name in measured:
            spread = row.spread(name)
            cells += ["", "", ""] if spread is None else _exact(spread)
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
    table.add_row("workdirs", *(escape(_listed(row, "workdir")) for row in rows))
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


def _listed(row: Row, attribute: str) -> str:
    """Return the values of the results' attribute, each once."""
    values = dict.fromkeys(getattr(result, attribute) for result in row.results)
    return " ".join(str(value) for value in values if value is not None)


def _exact(spread: Spread) -> list[str]:
    return [repr(value) for value in (spread.median, spread.low, spread.high)]


def _number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) and abs(value) > 1 else f"{value:.4f}"
