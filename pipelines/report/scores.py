"""The score of a fine-tuning as a table: what was measured, beside chance and published values."""

from collections.abc import Mapping
from dataclasses import dataclass

from rich.table import Table

from pipelines.finetune.score import CHANCE, NUM_EXAMPLES, PUBLISHED


@dataclass(frozen=True)
class Measured:
    """One metric of one split; None is a value that there is not."""

    split: str
    metric: str
    value: float | None
    chance: float | None
    "The same metric without looking at an example."
    published: float | None
    num_examples: int | None

    @property
    def name(self) -> str:
        """Name among the numbers of the stage ``score``."""
        return f"{self.split}/{self.metric}"


def measured(numbers: Mapping[str, float]) -> list[Measured]:
    """Return the metrics among the numbers of ``score``, and those that were only published."""
    published = {
        name.removeprefix(f"{PUBLISHED}/"): value
        for name, value in numbers.items()
        if name.startswith(f"{PUBLISHED}/")
    }
    names = [name for name in numbers if is_metric(name)]
    found = []
    for name in dict.fromkeys([*names, *published]):
        split, _, metric = name.partition("/")
        count = numbers.get(f"{split}/{NUM_EXAMPLES}")
        found.append(
            Measured(
                split,
                metric,
                numbers.get(name),
                numbers.get(f"{split}/{CHANCE}/{metric}"),
                published.get(name),
                None if count is None else int(count),
            )
        )
    return sorted(found, key=lambda row: row.split)  # stable, so metrics keep their order


def is_metric(name: str) -> bool:
    """Return whether a number of ``score`` is a measured metric."""
    split, _, metric = name.partition("/")
    return split != PUBLISHED and metric != NUM_EXAMPLES and not metric.startswith(f"{CHANCE}/")


def score_table(numbers: Mapping[str, float]) -> Table:
    """Return a table of the metrics, for the terminal."""
    table = Table("split", "metric", title="score", title_justify="left")
    for column in ("value", "chance", "published", "examples"):
        table.add_column(column, justify="right")
    for row in measured(numbers):
        values = (row.value, row.chance, row.published)
        count = "" if row.num_examples is None else f"{row.num_examples}"
        table.add_row(row.split, row.metric, *map(decimal, values), count)
    return table


def decimal(value: float | None) -> str:
    """Return a metric for display, as in ``0.7765``; nothing for None."""
    return "" if value is None else f"{value:.4f}"
