"""The command line: ``beit3 demo | plan | run | status | report | inspect | ui | doctor | gc``."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from orchestration.errors import PipelineError, RecipeError
from orchestration.plan import PlannedStage, State, latest_record
from orchestration.recipe import TrackingParams
from orchestration.reporting.estimates import estimate
from orchestration.reporting.summary import garbage_table, plan_table, status_table
from orchestration.reporting.tracking import tracking_uri
from orchestration.storage.files import StorageParams
from orchestration.storage.store import Store
from pipelines.inspect_model import app as inspect_app
from pipelines.open_recipe import miniweb_served, open_recipe
from pipelines.summary import print_summary

TINY = Path(__file__).parent / "recipes" / "tiny.yaml"

app = typer.Typer(
    help="BEiT-3 pretraining: from source lists to a checkpoint.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(inspect_app, name="inspect")
console = Console(width=None if sys.stdout.isatty() else 120)

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML file of the recipe.")]
Workdir = Annotated[
    str, typer.Option(help="Folder of all data, checkpoints and runs, or s3://bucket/prefix.")
]
Endpoint = Annotated[
    str | None,
    typer.Option("--endpoint-url", help="Of an S3-compatible store, as storage.endpoint_url."),
]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="As in train.steps=50.")
]
Only = Annotated[str | None, typer.Option(metavar="STAGE", help="Run this stage alone.")]
Until = Annotated[
    str | None, typer.Option(metavar="STAGE", help="Run this stage and what it needs.")
]
Jobs = Annotated[int, typer.Option(min=1, help="Stages that may run side by side.")]
Verify = Annotated[bool, typer.Option("--verify", help="Check the digest of all that is read.")]
DEMO = "runs/demo"


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
def demo(workdir: Workdir = DEMO, set_: Overrides = []) -> None:  # noqa: B006
    """Draw a miniature web and go the whole way on it, in minutes.

    Example: beit3 demo
    """
    _run(TINY, workdir, set_)


@app.command()
def plan(recipe: RecipePath, workdir: Workdir, set_: Overrides = []) -> None:  # noqa: B006
    """Say which stages are fresh, stale or missing, and why. Runs nothing.

    Example: beit3 plan pipelines/recipes/tiny.yaml --workdir runs/tiny --set train.steps=50
    """
    opened = open_recipe(recipe, workdir, set_, console)
    planned = opened.workflow.plan(opened.store)
    console.print(plan_table(planned, estimate(planned, opened.store)))
    opened.workflow.check(planned)


@app.command()
def run(
    recipe: RecipePath,
    workdir: Workdir,
    set_: Overrides = [],  # noqa: B006
    only: Only = None,
    until: Until = None,
    jobs: Jobs = 1,
    verify: Verify = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Compute again what is damaged on the store.")
    ] = False,
    retry: Annotated[
        str | None,
        typer.Option(
            metavar="REASONS", help="With --only: do its rejects again, as in timeout,http_5xx."
        ),
    ] = None,
) -> None:
    """Run what is not fresh; a killed run continues.

    Example: beit3 run pipelines/recipes/tiny.yaml --workdir runs/tiny --until curate
    """
    reasons = retry.split(",") if retry else ()
    _run(recipe, workdir, set_, only, until, jobs=jobs, verify=verify, repair=repair, retry=reasons)


@app.command()
def status(workdir: Workdir, endpoint_url: Endpoint = None) -> None:
    """Show how far the last workflow of a workdir is, from any machine, also while it runs.

    Example: beit3 status --workdir runs/demo
    """
    store = _store(workdir, endpoint_url)
    console.print(status_table(store, _last_record(store)))


@app.command()
def report(workdir: Workdir, endpoint_url: Endpoint = None) -> None:
    """Print the summary of the last workflow of a workdir again.

    Example: beit3 report --workdir runs/demo
    """
    store = _store(workdir, endpoint_url)
    print_summary(console, store, _last_record(store)["stages"])


@app.command()
def gc(
    workdir: Workdir,
    endpoint_url: Endpoint = None,
    keep_last: Annotated[
        int | None, typer.Option(min=1, help="Workflow records that count; all if not given.")
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete what is listed.")] = False,
) -> None:
    """List outputs that no workflow of a workdir refers to, and delete them if asked to.

    Example: beit3 gc --workdir runs/demo --keep-last 2 --delete
    """
    from orchestration.gc import abort_stale_uploads, collect, garbage
    from orchestration.storage.lock import workdir_lock

    store = _store(workdir, endpoint_url)
    if not delete:
        console.print(garbage_table(garbage(store, keep_last)))
        console.print("nothing was deleted; --delete does it")
        return
    with workdir_lock(store):
        found = garbage(store, keep_last)
        console.print(garbage_table(found))
        collect(store, found)
        aborted = abort_stale_uploads(store)
    console.print(f"deleted {len(found)} outputs, aborted {aborted} unfinished uploads")


@app.command()
def doctor(
    workdir: Workdir = DEMO,
    endpoint_url: Endpoint = None,
    tracking_uri_: Annotated[
        str | None, typer.Option("--tracking-uri", help="Of the MLflow server.")
    ] = None,
) -> None:
    """Check what a workflow needs: versions, Ray, GPU, disk, store, clock, names, MLflow.

    Example: beit3 doctor --workdir s3://bucket/run --endpoint-url http://localhost:9000
    """
    from orchestration.doctor import examine

    sick = 0
    store = _store(workdir, endpoint_url)
    for finding in examine(store, TrackingParams(uri=tracking_uri_)):
        mark = "[green]✓[/]" if finding.ok else "[red]✗[/]"
        console.print(
            f"{mark} {finding.check:<34} {finding.details}", highlight=False, soft_wrap=True
        )
        sick += not finding.ok
    if sick:
        raise typer.Exit(1)


@app.command()
def ui(
    workdir: Workdir = DEMO,
    port: Annotated[int, typer.Option(help="Port to serve on.")] = 5000,
) -> None:
    """Open the MLflow UI on a workdir's runs.

    Example: beit3 ui --workdir runs/demo
    """
    store = Store(workdir)
    uri = tracking_uri(TrackingParams(), store)
    if not uri.startswith("sqlite:"):
        raise RecipeError(f"the runs are at {uri}: open that address in a browser")
    if not store.exists("mlflow.db"):
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
    path: Path,
    workdir: str,
    overrides: list[str],
    only: str | None = None,
    until: str | None = None,
    *,
    jobs: int = 1,
    verify: bool = False,
    repair: bool = False,
    retry: Sequence[str] = (),
) -> None:
    opened = open_recipe(path, workdir, overrides, console)
    workflow, store = opened.workflow, opened.store
    planned = workflow.plan(store)
    if repair:
        _repair(store, workflow.select(planned, only, until))
        planned = workflow.plan(store)
    console.print(plan_table(planned, estimate(planned, store)))
    todo = [p for p in workflow.select(planned, only, until) if p.state is not State.FRESH]
    if retry:
        todo = [p for p in planned if p.stage.name == only]
    with miniweb_served(opened, todo) as served:
        served.run(store, console, only=only, until=until, jobs=jobs, verify=verify, retry=retry)
    print_summary(console, store, {p.stage.name: p.fingerprint for p in planned})


def _repair(store: Store, planned: Sequence[PlannedStage]) -> None:
    from orchestration.integrity import repair
    from orchestration.storage.lock import workdir_lock

    with workdir_lock(store), console.status("reading everything that is committed"):
        found = [
            damage
            for stage in planned
            if stage.state is State.FRESH
            for damage in repair(store.sub(stage.path))
        ]
    console.print(f"{len(found)} damaged files")
    for damage in found:
        console.print(f"  {damage}", highlight=False, soft_wrap=True)


def _store(workdir: str, endpoint_url: str | None) -> Store:
    return Store(workdir, StorageParams(endpoint_url=endpoint_url))


def _last_record(store: Store) -> dict[str, dict[str, str]]:
    record = latest_record(store)
    if record is None:
        raise RecipeError(f"{store.uri}: no workflow has run here")
    return record


if __name__ == "__main__":
    main()
