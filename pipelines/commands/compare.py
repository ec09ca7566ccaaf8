"""``beit3 compare``: the scores and evaluations of workdirs in one table."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import Endpoint, Region, console
from pipelines.commands.workdir import open_workdir


def compare(
    workdirs: Annotated[
        list[str], typer.Argument(metavar="WORKDIR…", help="Workdirs: paths or s3://bucket/prefix.")
    ],
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write all numbers as CSV, too.")
    ] = None,
    endpoint_url: Endpoint = None,
    region: Region = None,
) -> None:
    """Compare every committed score and evaluation: settings that differ, metrics, published ones.

    Results that differ in the seed alone are one row: median (smallest-largest).

    Example: beit3 compare runs/rte runs/rte-scratch --csv rte.csv
    """
    from orchestration.errors import RecipeError
    from pipelines.report.comparison import read_results, rows_of
    from pipelines.report.comparison_tables import comparison_tables, to_csv

    found = {name: read_results(open_workdir(name, endpoint_url, region)) for name in workdirs}
    if without := [name for name, results in found.items() if not results]:
        raise RecipeError(
            f"{', '.join(without)}: no score and no evaluation is complete here; see "
            "`beit3 status --workdir WORKDIR`, or leave it out"
        )
    rows = rows_of([result for results in found.values() for result in results])
    for table in comparison_tables(rows):
        console.print(table)
    if csv is None:
        return
    try:
        csv.expanduser().write_text(to_csv(rows), "utf-8")
    except OSError as error:
        raise RecipeError(f"--csv {csv}: cannot be written ({error.strerror})") from None
