"""What a model was made from, for its card: recipe, rows, and the licenses of their sources."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Provenance:
    """Where a model comes from; what is not known is empty."""

    recipe: str = ""
    "Name of the recipe."
    licenses: Mapping[str, str] = field(default_factory=dict)
    "License by source or split, each named with its format."
    rows: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    "Counts of rows by what they are counted in, and by the split or stream."

    def lines(self) -> Iterator[str]:
        """Yield the section of the card."""
        if self.recipe:
            yield from ("## Recipe", "", f"`beit3 run {self.recipe}`", "")
        if self.rows:
            heads = list(dict.fromkeys(name for counts in self.rows.values() for name in counts))
            yield from (
                "## Data",
                "",
                f"| rows of | {' | '.join(heads)} |",
                "|---" * (len(heads) + 1) + "|",
            )
            for part, counts in self.rows.items():
                yield f"| {part} | {' | '.join(f'{counts.get(name, 0):,}' for name in heads)} |"
            yield ""
        if self.licenses:
            yield from ("## Licenses of the data", "", "| data | license |", "|---|---|")
            yield from (f"| {name} | {words} |" for name, words in self.licenses.items())
            yield from (
                "",
                "Publishers state them so; check them before you use the model.",
                "",
            )


def use_lines(call: str) -> list[str]:
    """Return the section that says how the model is used.

    Args:
        call: of a method of ``PretrainedModel``.
    """
    return [
        "## Use",
        "",
        "```python",
        "from pipelines import PretrainedModel",
        "",
        'model = PretrainedModel.from_pretrained("FOLDER")  # this folder, or its name on the hub',
        f"model.{call}",
        "```",
        "",
    ]
