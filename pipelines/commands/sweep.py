"""``beit3 sweep``: the runs of a study, one after the other, and their comparison."""

from typing import TYPE_CHECKING, Annotated, Final

import typer

from pipelines.commands.compare import page_of, print_intervals
from pipelines.commands.options import DataFolder, Overrides, Workdir, console, say

if TYPE_CHECKING:
    from orchestration.reporting.run_log import RunLog
    from pipelines.studies.opening import OpenedStudy

PAGE_FILE: Final = "comparison.html"
CSV_FILE: Final = "comparison.csv"
"Files in the folder of a study."

StudyName = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="Name of a built-in study (studies/… in `beit3 recipes`), or path of a YAML file.",
    ),
]


def sweep(
    study: StudyName,
    workdir: Workdir,
    set_: Overrides = [],  # noqa: B006
    data: DataFolder = None,
) -> None:
    """Run every variant, combination of values and seed of a study in one workdir, then compare.

    The runs share the stages that they have in common. What is complete is not run again, so the
    same command continues a killed study. `beit3 plan STUDY` shows the runs beforehand.

    Example: beit3 sweep studies/masking --workdir runs/tiny-long
    """
    from pipelines.studies.opening import open_study
    from pipelines.studies.running import run_each, tracked

    opened = open_study(study, workdir, set_, console, data=data)
    with tracked(opened, say) as log:
        done = run_each([(run.words, run.opened) for run in opened.runs], console, say, log)
        _compare(opened, done.fingerprints, log)
        done.refuse_failures(len(opened.runs))


def _compare(opened: "OpenedStudy", fingerprints: dict[str, set[str]], log: "RunLog") -> None:
    """Print the comparison of what is complete, and write its page beside the study's recipe."""
    from pipelines.report.comparison import rows_of
    from pipelines.report.comparison_page import Variant
    from pipelines.report.comparison_tables import comparison_tables, to_csv
    from pipelines.report.results import read_results
    from pipelines.studies.running import folder_of

    store, study = opened.runs[0].opened.store, opened.study
    variants = {f: run.variant for run in opened.runs for f in fingerprints.get(run.words, ())}
    order = {run.variant: i for i, run in enumerate(opened.runs)}
    rows = rows_of([r for r in read_results(store) if r.fingerprint in variants])
    if not rows:
        return
    rows.sort(key=lambda row: order[variants[row.first.fingerprint]])
    for table in comparison_tables(rows):
        console.print(table)
    named = [Variant(variants[row.first.fingerprint], row) for row in rows]
    known = {name for row in rows for name in row.names()}
    missing = [name for name in study.metrics if name not in known]
    for name in missing:
        say(f"metric {name}: no run has it, so it is left out")
    names = print_intervals(named, [name for name in study.metrics if name in known])
    folder = folder_of(opened)
    page = page_of(study.name, named, names, {store.uri: store})
    for file, text in ((PAGE_FILE, page), (CSV_FILE, to_csv(rows))):
        folder.write_bytes(file, text.encode())
        log.artifact(folder.fetch(file))
    say(f"comparison: {folder.uri_of(PAGE_FILE)}")
