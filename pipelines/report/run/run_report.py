"""The report of a workflow: everything that its outputs say, on one page that holds its images.

It is made from the store, and from MLflow where that answers, at the end of each run and by
``beit3 report``. So it shows an unfinished workflow too, and is never older than what it shows. A
stage of its own could not: it would need every other stage, and a failed one would leave no report.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from orchestration import Dataset
from orchestration.errors import PipelineError, RecipeError
from orchestration.fingerprint import fingerprint_of
from orchestration.plan import IDENTITY, WORKFLOWS
from orchestration.recipe_text import parse_recipe
from orchestration.reporting.latest_run import LatestRun, latest_run
from orchestration.storage.store import Store
from pipelines.finetune.score import SCORE_FILE, missing_metrics
from pipelines.report.page import render
from pipelines.report.run import measured, neighbors, samples, tokenizers
from pipelines.report.run.stages import COMPLETE, StageLine, funnel, stage_lines
from pipelines.report.run.trainings import Training, trainings
from pipelines.report.scores import Measured
from pipelines.report.scores import measured as scored
from pipelines.tokens.given_codes import STAGES as GIVEN_CODES
from pipelines.tokens.text_tokenizer import MODEL_FILE
from tokenizer.text import TextTokenizer

HTML_FILE: Final = "run_report.html"
T = TypeVar("T")


@dataclass
class RunReport:
    """What the page shows; a part that the workflow does not have is empty or None."""

    name: str
    "Of the recipe."
    workdir: str
    folder: str
    "Of the workflow's record within the workdir."
    started_at: str
    "UTC, of the last start."
    lines: Sequence[StageLine]
    recipe: str
    versions: Mapping[str, str]
    "Of the programs that ran last, by name."
    code_versions: Mapping[str, int]
    "Of each stage's code."
    trainings: Sequence[Training] = ()
    codebook: tokenizers.Codebook | None = None
    vocabulary: tokenizers.Vocabulary | None = None
    evaluation: measured.Evaluation | None = None
    score: Sequence[Measured] = ()
    missing_metrics: Mapping[str, str] = field(default_factory=dict)
    images: Sequence[samples.ShownImage] = ()
    captions: Sequence[samples.ShownCaption] = ()
    nearest_images: Sequence[neighbors.Query] = ()
    likely_images: Sequence[neighbors.Query] = ()
    pages: Mapping[str, str] = field(default_factory=dict)
    "Locations of other reports by what they show."
    notes: list[str] = field(default_factory=list)
    "Why parts are missing that the workflow has."

    @property
    def num_complete(self) -> int:
        """Number of complete stages."""
        return sum(line.state == COMPLETE for line in self.lines)

    @property
    def seconds(self) -> float:
        """Time of all stages over all attempts."""
        return sum(line.seconds for line in self.lines)

    @property
    def gpu_hours(self) -> float | None:
        """GPU hours of all stages; None if those of one are not known."""
        known = [line.gpu_hours for line in self.lines if line.gpu_hours is not None]
        return sum(known) if len(known) == len(self.lines) else None


@dataclass(frozen=True)
class Written:
    """A page that was written."""

    location: str
    path: Path
    "A local copy, of a local workdir the page itself."


def write_run_report(workdir: Store, record: Mapping[str, Any]) -> Written:
    """Write the page of a workflow beside its record.

    Args:
        workdir: folder of the outputs.
        record: of the workflow.

    Raises:
        StoreError: the store cannot be read or written.
        ManifestError: the workflow's recipe is damaged.
    """
    folder = workdir.sub(f"{WORKFLOWS}/{fingerprint_of(record['stages'])}")
    page = page_of(run_report(workdir, record)).encode()
    folder.write_bytes(HTML_FILE, page)
    if folder.is_local:
        return Written(folder.uri_of(HTML_FILE), Path(folder.native_path(HTML_FILE)))
    copy = Path(tempfile.mkdtemp(prefix="beit3-report-")) / HTML_FILE
    copy.write_bytes(page)
    return Written(folder.uri_of(HTML_FILE), copy)


def page_of(report: RunReport) -> str:
    """Return the report as one HTML file."""
    return render("run_report.html", report=report, funnel=list(funnel(report.lines)))


def run_report(workdir: Store, record: Mapping[str, Any]) -> RunReport:
    """Read everything that a workflow's page shows.

    Args:
        workdir: folder of the outputs.
        record: of the workflow.

    Raises:
        StoreError: the store cannot be read at present.
        ManifestError: the workflow's recipe is damaged.
    """
    stages: Mapping[str, str] = record["stages"]
    path = f"{WORKFLOWS}/{fingerprint_of(stages)}"
    text = workdir.read(f"{path}/recipe.yaml")
    recipe, _ = parse_recipe(text, workdir.uri_of(f"{path}/recipe.yaml"))
    report = RunReport(
        record["name"],
        workdir.uri,
        path,
        datetime.fromtimestamp(record["started_at"], UTC).strftime("%Y-%m-%d %H:%M UTC"),
        stage_lines(workdir, stages, recipe),
        text.decode(),
        record.get("versions", {}),
        _code_versions(workdir, stages),
    )
    report.trainings = trainings(workdir, stages, _latest(workdir), report.notes.append)
    complete = {line.name: line for line in report.lines if line.state == COMPLETE}
    _add_tokenizers(report, workdir, complete)
    _add_evaluation(report, workdir, complete)
    _add_score(report, workdir, complete)
    for stage, file, what in (
        ("data_report", "data_report.html", "sources, hosts, sizes and dropped images"),
        ("task_report", "report.html", "right and wrong predictions"),
    ):
        if stage in complete:
            report.pages = {**report.pages, what: workdir.uri_of(f"{complete[stage].path}/{file}")}
    return report


def _add_tokenizers(report: RunReport, workdir: Store, complete: Mapping[str, StageLine]) -> None:
    if line := complete.get("image_tokenizer"):
        report.codebook = _part(report, lambda: tokenizers.codebook(workdir, line.path), None)
    if line_of_text := complete.get("text_tokenizer"):
        report.vocabulary = _part(
            report, lambda: tokenizers.vocabulary(workdir, line_of_text.path), None
        )


def _add_evaluation(report: RunReport, workdir: Store, complete: Mapping[str, StageLine]) -> None:
    line = complete.get("evaluate")
    if line is None or line.manifest is None:
        return
    report.evaluation = measured.evaluation(line.path, line.manifest.numbers)
    found = Dataset(workdir.sub(line.path), line.manifest)

    def dataset(stage: str) -> Dataset:
        given = GIVEN_CODES.get(stage, stage)
        if given in complete:  # whose rows the evaluation has numbered
            stage = given
        if stage not in complete:
            raise RecipeError(f"{stage} is not complete")
        return Dataset.open(workdir.sub(complete[stage].path))

    report.images = _part(report, lambda: samples.shown_images(found), [])
    report.captions = _part(report, lambda: samples.shown_captions(found), [])
    report.nearest_images = _part(
        report, lambda: neighbors.nearest_images(found, dataset("image_tokens")), []
    )
    report.likely_images = _part(
        report,
        lambda: neighbors.likely_images(
            found,
            dataset("pair_tokens"),
            TextTokenizer.load(dataset("text_tokenizer").fetch(MODEL_FILE)),
        ),
        [],
    )


def _add_score(report: RunReport, workdir: Store, complete: Mapping[str, StageLine]) -> None:
    line = complete.get("score")
    if line is None or line.manifest is None:
        return
    report.score = scored(line.manifest.numbers)
    if any(file.path == SCORE_FILE for file in line.manifest.files):
        folder = workdir.sub(line.path)
        report.missing_metrics = _part(report, lambda: missing_metrics(folder.read(SCORE_FILE)), {})


def _part(report: RunReport, make: Callable[[], T], missing: T) -> T:
    """Return a part of the report; if it cannot be read, a note says why."""
    try:
        return make()
    except PipelineError as error:
        report.notes.append(str(error))
        return missing


def _code_versions(workdir: Store, stages: Mapping[str, str]) -> dict[str, int]:
    found = {}
    for name, fingerprint in stages.items():
        folder = workdir.sub(f"{name}/{fingerprint}")
        if folder.exists(IDENTITY):
            found[name] = int(folder.read_json(IDENTITY, {"version": int})["version"])
    return found


def _latest(workdir: Store) -> LatestRun | None:
    try:
        return latest_run(workdir)
    except PipelineError:  # no run has reached a tracking server
        return None
