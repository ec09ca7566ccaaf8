"""``beit3 doctor``: checks of the machine, the cluster, the store and the tracking server."""

from typing import Annotated

import typer
from rich.markup import escape

from pipelines.commands.options import DEMO_WORKDIR, Endpoint, Region, Workdir, console
from pipelines.commands.workdir import open_workdir


def doctor(
    workdir: Workdir = DEMO_WORKDIR,
    endpoint_url: Endpoint = None,
    region: Region = None,
    tracking_uri: Annotated[
        str | None, typer.Option("--tracking-uri", help="Address of the MLflow tracking server.")
    ] = None,
) -> None:
    """Check what a workflow needs: versions, Ray, GPU, disk, store, clock, DNS, MLflow.

    Example: beit3 doctor --workdir s3://bucket/run --endpoint-url http://localhost:9000
    """
    from orchestration.doctor import examine
    from orchestration.recipe import TrackingParams

    num_failed = 0
    store = open_workdir(workdir, endpoint_url, region)
    for finding in examine(store, TrackingParams(uri=tracking_uri)):
        mark = "[green]✓[/]" if finding.ok else "[red]✗[/]"
        console.print(
            f"{mark} {finding.check:<34} {escape(finding.details)}", highlight=False, soft_wrap=True
        )
        num_failed += not finding.ok
    if num_failed:
        raise typer.Exit(1)
