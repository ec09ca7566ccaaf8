"""``beit3 sweep``: the runs of a study, one after the other, and their comparison."""

from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.options import DataFolder, Overrides, Workdir, console, say

if TYPE_CHECKING:
    from pipelines.studies.opening import OpenedStudy

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

    Example: beit3 sweep studies/masking --workdir runs/demo
    """
    from pipelines.studies.opening import open_study
    from pipelines.studies.running import run_each, tracked

    opened = open_study(study, workdir, set_, console, data=data)
    with tracked(opened, say) as log:
        done = run_each([(run.words, run.opened) for run in opened.runs], console, say, log)
        _compare(opened, done.fingerprints)
        done.refuse_failures(len(opened.runs))


def _compare(opened: "OpenedStudy", fingerprints: dict[str, set[str]]) -> None:
    from pipelines.report.comparison import read_results, rows_of
    from pipelines.report.comparison_tables import comparison_tables

    known = set().union(*fingerprints.values())
    store = opened.runs[0].opened.store
    rows = rows_of([r for r in read_results(store) if r.fingerprint in known])
    for table in comparison_tables(rows):
        console.print(table)
