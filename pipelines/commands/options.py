"""Arguments and options that several commands share, and the console that they print to."""

import sys
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from pipelines.builtin_recipes import complete_recipe

DEMO_WORKDIR: Final = "runs/demo"

console = Console(width=None if sys.stdout.isatty() else 120)


def say(line: str) -> None:
    """Print a line as it is."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def write_text(file: Path, option: str, text: str) -> None:
    """Write a file that an option names.

    Raises:
        RecipeError: it cannot be written.
    """
    from orchestration.errors import RecipeError

    try:
        file.expanduser().write_text(text, "utf-8")
    except OSError as error:
        raise RecipeError(f"{option} {file}: cannot be written ({error.strerror})") from None


def given_path(text: str) -> Path:
    """Return a path that was given; an empty one, such as of an unset variable, is refused."""
    if not text.strip():
        raise typer.BadParameter("the path is empty; name a file or folder")
    return Path(text)


def given_column(text: str) -> str:
    """Return the name of a column that was given; an empty one is refused as in a path."""
    from dataprep.text import arrow_safe

    if not text:
        raise typer.BadParameter("the name is empty; name a column")
    return arrow_safe(text)


RecipeName = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="Name of a built-in recipe (see `beit3 recipes`), or path of a YAML file.",
        autocompletion=complete_recipe,
    ),
]
_WORKDIR: Final = typer.Option(
    help="Folder of all data, checkpoints and runs: a path or s3://bucket/prefix."
)
Workdir = Annotated[str, _WORKDIR]
WorkdirOrNone = Annotated[str | None, _WORKDIR]
Endpoint = Annotated[
    str | None,
    typer.Option("--endpoint-url", help="Address of an S3-compatible object store."),
]
Region = Annotated[
    str | None,
    typer.Option("--region", help="Region of the workdir's bucket; see also AWS_REGION."),
]
Overrides = Annotated[
    list[str],
    typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe key: train.steps=50."),
]
DataFolder = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DIR",
        envvar="BEIT3_DATA",
        help="Folder of the source files: the value of ${data} in the recipe.",
    ),
]
Shrink = Annotated[
    bool,
    typer.Option(
        "--shrink",
        help="Replace the sources by drawn files and all sizes by tiny ones: a trial run on a CPU.",
    ),
]
