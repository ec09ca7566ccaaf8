"""The command line: ``beit3 demo | plan | run | status | report | inspect | ui``."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dataprep.miniweb import corpora, server
from orchestration.errors import PipelineError, RecipeError
from orchestration.params import external_files
from orchestration.plan import PlannedStage, State, latest_record
from orchestration.recipe import TrackingParams, load_recipe
from orchestration.store import Store
from orchestration.summary import plan_table, status_table
from orchestration.tracking import tracking_uri
from orchestration.workflow import Workflow
from pipelines.inspection import app as inspect_app
from pipelines.recipe import PretrainRecipe
from pipelines.summary import print_summary
from pipelines.workflow import build_workflow

TINY = Path(__file__).parent / "recipes" / "tiny.yaml"

app = typer.Typer(
    help="BEiT-3 pretraining: from source lists to a checkpoint.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(inspect_app, name="inspect")
console = Console(width=None if sys.stdout.isatty() else 120)

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML file of the recipe.")]
Workdir = Annotated[Path, typer.Option(help="Folder of all data, checkpoints and runs.")]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="As in train.steps=50.")
]
Only = Annotated[str | None, typer.Option(metavar="STAGE", help="Run this stage alone.")]
Until = Annotated[
    str | None, typer.Option(metavar="STAGE", help="Run this stage and what it needs.")
]
RUNS = Path("runs")


def main() -> None:
    """Entry point: errors meant for people become one message and exit code 1."""
    try:
        app()
    except PipelineError as error:
        Console(stderr=True).print(f"[red]error:[/] {error}", highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


@app.command()
def demo(workdir: Workdir = RUNS / "demo", set_: Overrides = []) -> None:  # noqa: B006
    """Draw a miniature web and go the whole way on it, in minutes.

    Example: beit3 demo
    """
    _run(TINY, workdir, set_, None, None)


@app.command()
def plan(recipe: RecipePath, workdir: Workdir, set_: Overrides = []) -> None:  # noqa: B006
    """Say which stages are fresh, stale or missing, and why. Runs nothing.

    Example: beit3 plan pipelines/recipes/tiny.yaml --workdir runs/tiny --set train.steps=50
    """
    workflow, _ = _open(recipe, workdir, set_)
    console.print(plan_table(workflow.plan(Store(workdir))))


@app.command()
def run(
    recipe: RecipePath,
    workdir: Workdir,
    set_: Overrides = [],  # noqa: B006
    only: Only = None,
    until: Until = None,
) -> None:
    """Run what is not fresh; a killed run continues.

    Example: beit3 run pipelines/recipes/tiny.yaml --workdir runs/tiny --until curate
    """
    _run(recipe, workdir, set_, only, until)


@app.command()
def status(workdir: Workdir) -> None:
    """Show how far the last workflow of a workdir is, from any machine, also while it runs.

    Example: beit3 status --workdir runs/demo
    """
    console.print(status_table(Store(workdir), _last_record(workdir)))


@app.command()
def report(workdir: Workdir) -> None:
    """Print the summary of the last workflow of a workdir again.

    Example: beit3 report --workdir runs/demo
    """
    print_summary(console, Store(workdir), _last_record(workdir)["stages"])


@app.command()
def ui(
    workdir: Workdir = RUNS / "demo",
    port: Annotated[int, typer.Option(help="Port to serve on.")] = 5000,
) -> None:
    """Open the MLflow UI on a workdir's runs.

    Example: beit3 ui --workdir runs/demo
    """
    uri = tracking_uri(TrackingParams(), workdir)
    if not uri.startswith("sqlite:"):
        raise RecipeError(f"the runs are at {uri}: open that address in a browser")
    if not (workdir / "mlflow.db").exists():
        raise RecipeError(f"{workdir} has no runs yet")
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "ui",
        "--backend-store-uri",
        uri,
        "--port",
        str(port),
    ]
    os.execv(sys.executable, command)


def _run(
    path: Path, workdir: Path, overrides: list[str], only: str | None, until: str | None
) -> None:
    workflow, recipe = _open(path, workdir, overrides)
    store = Store(workdir)
    planned = workflow.plan(store)
    console.print(plan_table(planned))
    todo = [p for p in workflow.select(planned, only, until) if p.state is not State.FRESH]
    with _miniweb_served(recipe, workdir, todo) as connect_to:
        if connect_to:
            download = recipe.download.model_copy(
                update={"connect_to": connect_to, "allow_private_addresses": True}
            )
            workflow = build_workflow(recipe.model_copy(update={"download": download}))
        workflow.run(store, console, only=only, until=until)
    print_summary(console, store, {p.stage.name: p.fingerprint for p in planned})


def _open(path: Path, workdir: Path, overrides: list[str]) -> tuple[Workflow, PretrainRecipe]:
    """Read and check a recipe; draw its miniature web, if it has one, where it is not there yet."""
    workdir = workdir.absolute()
    recipe = load_recipe(PretrainRecipe, path, workdir=workdir, overrides=overrides)
    web = workdir / "miniweb"
    missing = [
        f"  {key}: {file}"
        for key, file in external_files(recipe)
        if not file.is_file() and not (recipe.miniweb and web in file.parents)
    ]
    if missing:
        raise RecipeError("\n".join([f"{path}: files are missing, nothing was run", *missing]))
    if recipe.miniweb:
        with console.status("drawing the miniature web"):
            corpora.build(web, recipe.miniweb.size())
    return build_workflow(recipe), recipe


@contextmanager
def _miniweb_served(
    recipe: PretrainRecipe, workdir: Path, todo: list[PlannedStage]
) -> Iterator[dict[str, str]]:
    """Serve the miniature web while stages download from it."""
    if recipe.miniweb and any(p.stage.name.startswith("download/") for p in todo):
        with server.serving(workdir / "miniweb") as port:
            yield {"*.miniweb.test": f"127.0.0.1:{port}"}
    else:
        yield {}


def _last_record(workdir: Path) -> dict[str, dict[str, str]]:
    record = latest_record(Store(workdir))
    if record is None:
        raise RecipeError(f"{workdir}: no workflow has run here")
    return record


if __name__ == "__main__":
    main()
