"""``beit3 status``, ``beit3 report`` and ``beit3 gc``: the commands that read a workdir."""

import webbrowser
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.commands.options import Endpoint, Region, Workdir, console

if TYPE_CHECKING:
    from orchestration.storage.files import StorageParams
    from orchestration.storage.store import Store


def status(workdir: Workdir, endpoint_url: Endpoint = None, region: Region = None) -> None:
    """Print the progress of a workdir's last workflow, from any machine, also while it runs.

    Example: beit3 status --workdir runs/demo
    """
    from orchestration.reporting.summary import status_table

    store = open_workdir(workdir, endpoint_url, region)
    console.print(status_table(store, last_record(store)))


def report(
    workdir: Workdir,
    endpoint_url: Endpoint = None,
    region: Region = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a web browser.")] = False,
) -> None:
    """Print the summary of a workdir's last workflow again, and write a page about it.

    Example: beit3 report --workdir runs/demo --open
    """
    from pipelines.report.run.run_report import write_run_report
    from pipelines.summary import print_location, print_summary

    store = open_workdir(workdir, endpoint_url, region)
    record = last_record(store)
    print_summary(console, store, record["stages"])
    written = write_run_report(store, record)
    print_location(console, "run report", written.location)
    if open_:
        webbrowser.open(written.path.as_uri())


def gc(
    workdir: Workdir,
    endpoint_url: Endpoint = None,
    region: Region = None,
    keep_last: Annotated[
        int | None,
        typer.Option(min=1, help="Number of latest workflows whose outputs are kept; default all."),
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the listed outputs.")] = False,
) -> None:
    """List the outputs that no workflow of a workdir uses; delete them with --delete.

    Example: beit3 gc --workdir runs/demo --keep-last 2 --delete
    """
    from orchestration.gc import abort_stale_uploads, collect, garbage
    from orchestration.reporting.summary import garbage_table
    from orchestration.storage.lock import workdir_lock

    store = open_workdir(workdir, endpoint_url, region)
    found = garbage(store, keep_last)
    if not found:
        last_record(store)  # refuses a folder in which nothing has run
    if not delete:
        if not found:
            console.print("every output is used by a workflow that is kept; nothing to delete")
            return
        console.print(garbage_table(found))
        console.print("nothing was deleted; add --delete to delete these outputs")
        return
    with workdir_lock(store):
        found = garbage(store, keep_last)
        console.print(garbage_table(found))
        collect(store, found)
        console.print(f"deleted {len(found)} outputs")
        console.print(f"aborted {abort_stale_uploads(store)} unfinished uploads")


def open_workdir(workdir: str, endpoint_url: str | None, region: str | None = None) -> "Store":
    """Return the store of a workdir.

    Raises:
        RecipeError: the endpoint or the region is not valid.
        StoreError: the workdir is not valid.
    """
    from orchestration.storage.store import Store

    return Store(workdir, storage_of(endpoint_url, region))


def storage_of(endpoint_url: str | None, region: str | None) -> "StorageParams":
    """Return how an object store is reached.

    Raises:
        RecipeError: the endpoint or the region is not valid.
    """
    from pydantic import ValidationError

    from orchestration.errors import RecipeError
    from orchestration.storage.files import StorageParams

    try:
        return StorageParams(endpoint_url=endpoint_url, region=region)
    except ValidationError as error:
        first = error.errors()[0]
        option = f"--{first['loc'][0]}".replace("_", "-")
        raise RecipeError(f"{option}: {first['msg'].removeprefix('Value error, ')}") from None


def last_record(store: "Store") -> dict[str, Any]:
    """Return the record of the workflow that was started last; RecipeError without one."""
    from orchestration.errors import RecipeError
    from orchestration.plan import latest_record

    record = latest_record(store)
    if record is None:
        raise RecipeError(
            f"{store.uri}: no workflow has run here; start one with "
            f"`beit3 run RECIPE --workdir {quote(store.uri)}`"
        )
    return record
