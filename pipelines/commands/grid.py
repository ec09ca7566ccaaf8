"""``beit3 grid``: every combination of some settings, run one after the other and compared."""

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from pipelines.commands.options import (
    DataFolder,
    Overrides,
    RecipeName,
    Workdir,
    console,
    say,
)

if TYPE_CHECKING:
    from orchestration.storage.store import Store

_OPENING: Final = "[{"
_CLOSING: Final = "]}"
_QUOTES: Final = "\"'"
_BEFORE_QUOTES: Final = ("", *"[{,:")
"Characters of a value after which a quoted text may begin."

Over = Annotated[
    list[str],
    typer.Option(
        "--over",
        metavar="KEY=V1,V2",
        help="Values of a recipe key; repeat for more keys: every combination is run.",
    ),
]


def grid(
    recipe: RecipeName,
    workdir: Workdir,
    over: Over,
    set_: Overrides = [],  # noqa: B006
    data: DataFolder = None,
) -> None:
    """Run every combination of settings in one workdir, then compare them.

    Combinations share the stages that they have in common. What is complete is not run again, so
    the same command continues a killed grid.

    Example: beit3 grid finetune/glue-rte --data /data --workdir runs/rte
    --over finetune.lr=1e-5,2e-5,3e-5,5e-5 --over finetune.batch_size=16,32 --over seed=0,1,2
    """
    from pipelines.open_recipe import open_recipe
    from pipelines.studies.running import run_each

    chosen = combinations(over)
    # All are read before the first one runs, so that a mistake in the last one costs nothing.
    opened = [open_recipe(recipe, workdir, [*set_, *some], console, data=data) for some in chosen]
    words = [", ".join(some) for some in chosen]
    done = run_each(list(zip(words, opened, strict=True)), console, say)
    _print_comparison(opened[0].store, set().union(*done.fingerprints.values()))
    done.refuse_failures(len(chosen))


def combinations(over: Sequence[str]) -> list[list[str]]:
    """Return every combination of ``KEY=V1,V2`` as a list of overrides ``KEY=V``.

    The last key changes fastest. A comma within brackets or quotes belongs to a value.

    Raises:
        RecipeError: a text has no key or no value, or names a key or value twice.
    """
    from orchestration.errors import RecipeError

    choices: dict[str, list[str]] = {}
    for text in over:
        key, _, listed = text.partition("=")
        values = [value.strip() for value in _split(listed)]
        if not key.strip() or not all(values):
            raise RecipeError(f"--over {text}: expected KEY=V1,V2, as in finetune.lr=1e-5,2e-5")
        if key.strip() in choices or len(set(values)) < len(values):
            raise RecipeError(f"--over {text}: a key or a value stands twice; leave one out")
        choices[key.strip()] = values
    pairs = [[f"{key}={value}" for value in values] for key, values in choices.items()]
    return [list(some) for some in itertools.product(*pairs)]


def _split(text: str) -> Iterator[str]:
    """Yield the parts between the commas that are in no brackets and no quotes.

    As in YAML, a quote within a word is an apostrophe.
    """
    depth, quote, start = 0, "", 0
    for i, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in _QUOTES and text[start:i].rstrip()[-1:] in _BEFORE_QUOTES:
            quote = character
        elif character in _OPENING:
            depth += 1
        elif character in _CLOSING:
            depth -= 1
        elif character == "," and not depth:
            yield text[start:i]
            start = i + 1
    yield text[start:]


def _print_comparison(store: "Store", fingerprints: set[str]) -> None:
    from pipelines.report.comparison import best_on_dev, differing, rows_of
    from pipelines.report.comparison_tables import comparison_tables, spread_words
    from pipelines.report.results import read_results

    rows = rows_of([r for r in read_results(store) if r.fingerprint in fingerprints])
    for table in comparison_tables(rows):
        console.print(table)
    if best := best_on_dev(rows):
        row, metric = best
        settings = [f"{name}={row.first.settings.get(name)}" for name in differing(rows)]
        words = ", ".join(settings) or "the only settings"
        say(
            f"best median of {metric}: {spread_words(row.spread(metric))} over "
            f"{len(row.results)} seeds, with {words}"
        )
