"""``beit3 compare``: the scores and evaluations of workdirs in tables and on a page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.options import Endpoint, Region, console, say, write_text
from pipelines.commands.workdir import open_workdir

if TYPE_CHECKING:
    from orchestration.storage.store import Store
    from pipelines.report.comparison_page import Variant

Metrics = Annotated[
    list[str],
    typer.Option(
        "--metric",
        metavar="NAME",
        help="Number that the intervals and the page show; repeat for more. Default: main ones.",
    ),
]


def compare(
    workdirs: Annotated[
        list[str], typer.Argument(metavar="WORKDIR…", help="Workdirs: paths or s3://bucket/prefix.")
    ],
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write all numbers as CSV, too.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page with figures, too.")
    ] = None,
    metric: Metrics = [],  # noqa: B006
    endpoint_url: Endpoint = None,
    region: Region = None,
) -> None:
    """Compare every committed score and evaluation: settings that differ, metrics, published ones.

    Results that differ in the seed alone are one row: median (smallest-largest). With several
    seeds there are means, 95% intervals and differences to the first row, too.

    Example: beit3 compare runs/rte runs/rte-scratch --csv rte.csv --html rte.html
    """
    from orchestration.errors import RecipeError
    from pipelines.report.comparison import repeated, rows_of
    from pipelines.report.comparison_page import labeled
    from pipelines.report.comparison_tables import comparison_tables, to_csv
    from pipelines.report.results import read_results

    stores = {name: open_workdir(name, endpoint_url, region) for name in workdirs}
    found = {name: read_results(store) for name, store in stores.items()}
    if without := [name for name, results in found.items() if not results]:
        raise RecipeError(
            f"{', '.join(without)}: no score and no evaluation is complete here; see "
            "`beit3 status --workdir WORKDIR`, or leave it out"
        )
    results = [result for some in found.values() for result in some]
    rows = rows_of(results)
    for table in comparison_tables(rows):
        console.print(table)
    for line in repeated(results):
        say(line)
    variants = labeled(rows)
    names = print_intervals(variants, metric)
    if csv is not None:
        write_text(csv, "--csv", to_csv(rows))
    if html is not None:
        known = {store.uri: store for store in stores.values()}
        write_text(html, "--html", page_of("comparison", variants, names, known))


def print_intervals(variants: "Sequence[Variant]", metrics: Sequence[str]) -> list[str]:
    """Print means and intervals if there are several seeds; return the metrics.

    Args:
        variants: what is compared.
        metrics: names of numbers, or none for the main ones.

    Raises:
        RecipeError: no result has a metric.
    """
    from pipelines.report.comparison_page import chosen_metrics, metric_part
    from pipelines.report.comparison_tables import intervals_table

    rows = [variant.row for variant in variants]
    names = chosen_metrics(rows, metrics)
    if any(len(row.results) > 1 for row in rows):
        console.print(intervals_table([metric_part(variants, name) for name in names]))
    return names


def page_of(
    title: str, variants: "Sequence[Variant]", names: Sequence[str], stores: "Mapping[str, Store]"
) -> str:
    """Return the page of a comparison; print a line for each part of a curve that is lost.

    Args:
        title: of the page.
        variants: what is compared.
        names: of the metrics.
        stores: workdirs of the results by URI.
    """
    from pipelines.report.comparison_page import comparison_page
    from pipelines.report.results import learning_curves

    results = [result for variant in variants for result in variant.row.results]
    told: dict[str, None] = {}  # several results may be of one training
    curves = {
        (r.workdir, r.fingerprint): learning_curves(stores[r.workdir], r, told.setdefault)
        for r in results
    }
    for line in told:
        say(line)
    return comparison_page(title, variants, names, curves, list(told))
