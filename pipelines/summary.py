"""The summary and the report at the end of a run; they read only the store and MLflow."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from orchestration.errors import PipelineError
from orchestration.manifest import MANIFEST, read_manifest
from orchestration.plan import latest_record
from orchestration.reporting.attempts import error_words
from orchestration.reporting.latest_run import latest_run
from orchestration.reporting.run_log import RunLog
from orchestration.reporting.summary import stages_table
from orchestration.storage.store import Store
from pipelines.apply.operations import OPERATIONS
from pipelines.finetune.finetune import CURVE_FILE
from pipelines.pretrain.checkpoints import NETWORK_FILE
from pipelines.pretrain.pretrain import FIGURE_FILE
from pipelines.report import task_report
from pipelines.report.data_report import HTML_FILE
from pipelines.report.learned import baselines_table, gap_lines, learned_table
from pipelines.report.run.run_report import write_run_report
from pipelines.report.scores import score_table

logger = logging.getLogger(__name__)


@contextmanager
def reported(console: Console, workdir: Store) -> Iterator[None]:
    """Write the report of the workflow that runs in the block, also if a stage fails.

    The page becomes an artifact of the workflow's MLflow run. Nothing is written if no stage ran.
    """
    before = latest_record(workdir)
    try:
        yield
    except PipelineError:
        _report(console, workdir, before)
        raise
    _report(console, workdir, before)


def _report(console: Console, workdir: Store, before: Mapping[str, Any] | None) -> None:
    try:
        record = latest_record(workdir)
        if record is None or record == before:
            return
        written = write_run_report(workdir, record)
        print_location(console, "run report", written.location)
        run = latest_run(workdir)
        RunLog(run.uri, run.run_id).artifact(written.path)
    except Exception as error:  # a report must not fail a training of weeks
        logger.warning("the run report is not written", exc_info=error)
        console.print(
            f"the run report is not written: {error_words(error)}", highlight=False, markup=False
        )


def print_summary(console: Console, workdir: Store, fingerprints: Mapping[str, str]) -> None:
    """Print what each stage did, what was measured, and the locations of the results."""
    console.print(stages_table(workdir, fingerprints))
    committed = {
        name: folder
        for name, fingerprint in fingerprints.items()
        if (folder := workdir.sub(f"{name}/{fingerprint}")).exists(MANIFEST)
    }
    if "score" in fingerprints:
        _print_finetuning(console, committed)
    elif fingerprints.keys() & set(OPERATIONS):
        _print_applied(console, workdir, committed)
    else:
        _print_pretraining(console, committed)
        if "pretrain" in fingerprints:
            pretraining = workdir.sub(f"pretrain/{fingerprints['pretrain']}")
            if pretraining.exists(FIGURE_FILE):
                print_location(console, "losses", pretraining.uri_of(FIGURE_FILE))
    print_location(console, "MLflow", f"beit3 ui {workdir.as_option('--workdir')}")


def _print_applied(console: Console, workdir: Store, committed: Mapping[str, Store]) -> None:
    for name in OPERATIONS:
        if folder := committed.get(name):
            print_location(console, "results", f"{folder.uri}/data/*.parquet")
    if "embed" in committed:
        print_location(
            console, "search", f"beit3 search --model MODEL {workdir.as_option('--in')} TEXT"
        )


def _print_pretraining(console: Console, committed: Mapping[str, Store]) -> None:
    if evaluation := committed.get("evaluate"):
        numbers = read_manifest(evaluation).numbers
        console.print(learned_table(numbers))
        console.print(baselines_table(numbers))
        for line in gap_lines(numbers):
            console.print(line, highlight=False)
    if folder := committed.get("data_report"):
        print_location(console, "data report", folder.uri_of(HTML_FILE))
    for name, what in (("pretrain", "checkpoint"), ("export", "export")):
        if folder := committed.get(name):
            _print_network(console, what, folder)


def _print_finetuning(console: Console, committed: Mapping[str, Store]) -> None:
    if score := committed.get("score"):
        console.print(score_table(read_manifest(score).numbers))
    if (folder := committed.get("finetune")) and folder.exists(CURVE_FILE):
        print_location(console, "curve", folder.uri_of(CURVE_FILE))
    if folder := committed.get("task_report"):
        print_location(console, "report", folder.uri_of(task_report.HTML_FILE))
    if folder := committed.get("export"):
        _print_network(console, "export", folder)


def _print_network(console: Console, what: str, folder: Store) -> None:
    """Print the location of the folder within a committed output that holds a network."""
    (found,) = {
        file.path.removesuffix(f"/{NETWORK_FILE}")
        for file in read_manifest(folder).files
        if file.path.endswith(f"/{NETWORK_FILE}")
    }
    print_location(console, what, folder.uri_of(found))


def print_location(console: Console, what: str, location: str) -> None:
    """Print where something lies."""
    console.print(f"{what:<11} {location}", highlight=False, markup=False, soft_wrap=True)
