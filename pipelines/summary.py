"""The summary at the end of a run; it reads only the store."""

from collections.abc import Mapping
from shlex import quote

from rich.console import Console

from orchestration.manifest import MANIFEST, read_manifest
from orchestration.reporting.summary import stages_table
from orchestration.storage.store import Store
from pipelines.apply.operations import OPERATIONS
from pipelines.finetune.finetune import CURVE_FILE
from pipelines.pretrain.checkpoints import NETWORK_FILE
from pipelines.pretrain.pretrain import FIGURE_FILE
from pipelines.report import task_report
from pipelines.report.data_report import HTML_FILE
from pipelines.report.learned import baselines_table, gap_lines, learned_table
from pipelines.report.scores import score_table


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
                _print_location(console, "losses", pretraining.uri_of(FIGURE_FILE))
    _print_location(console, "MLflow", f"beit3 ui --workdir {quote(workdir.uri)}")


def _print_applied(console: Console, workdir: Store, committed: Mapping[str, Store]) -> None:
    for name in OPERATIONS:
        if folder := committed.get(name):
            _print_location(console, "results", f"{folder.uri}/data/*.parquet")
    if "embed" in committed:
        _print_location(
            console, "search", f"beit3 search --model MODEL --in {quote(workdir.uri)} TEXT"
        )


def _print_pretraining(console: Console, committed: Mapping[str, Store]) -> None:
    if evaluation := committed.get("evaluate"):
        numbers = read_manifest(evaluation).numbers
        console.print(learned_table(numbers))
        console.print(baselines_table(numbers))
        for line in gap_lines(numbers):
            console.print(line, highlight=False)
    if folder := committed.get("data_report"):
        _print_location(console, "data report", folder.uri_of(HTML_FILE))
    for name, what in (("pretrain", "checkpoint"), ("export", "export")):
        if folder := committed.get(name):
            _print_network(console, what, folder)


def _print_finetuning(console: Console, committed: Mapping[str, Store]) -> None:
    if score := committed.get("score"):
        console.print(score_table(read_manifest(score).numbers))
    if (folder := committed.get("finetune")) and folder.exists(CURVE_FILE):
        _print_location(console, "curve", folder.uri_of(CURVE_FILE))
    if folder := committed.get("task_report"):
        _print_location(console, "report", folder.uri_of(task_report.HTML_FILE))
    if folder := committed.get("export"):
        _print_network(console, "export", folder)


def _print_network(console: Console, what: str, folder: Store) -> None:
    """Print the location of the folder within a committed output that holds a network."""
    (found,) = {
        file.path.removesuffix(f"/{NETWORK_FILE}")
        for file in read_manifest(folder).files
        if file.path.endswith(f"/{NETWORK_FILE}")
    }
    _print_location(console, what, folder.uri_of(found))


def _print_location(console: Console, what: str, location: str) -> None:
    console.print(f"{what:<11} {location}", highlight=False, markup=False, soft_wrap=True)
