"""Running several opened recipes of one workdir one after the other, and their one MLflow run.

A run that is complete is not run again, and a run that fails stops no other one, so the same
command continues after a kill and runs again what failed.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from rich.console import Console

from orchestration.errors import RecipeError, StageError
from orchestration.fingerprint import fingerprint_of
from orchestration.plan import WORKFLOWS, PlannedStage, State
from orchestration.recipe_text import dump_recipe
from orchestration.reporting.run_log import RunLog, terminal_state
from orchestration.reporting.tracking import Tracker
from orchestration.storage.lock import workdir_lock
from orchestration.storage.store import Store
from pipelines.open_recipe import Opened, miniweb_served
from pipelines.report.results import STAGES
from pipelines.studies.opening import OpenedStudy

STUDIES: Final = "studies"
"Folder of a workdir with a folder for each study."
RECIPE_FILE: Final = "study.yaml"


@dataclass(frozen=True)
class Done:
    """What came of several runs."""

    fingerprints: dict[str, set[str]]
    "Fingerprints of the committed scores and evaluations, by the words of their run."
    failed: list[str]
    "Words of the runs that failed."

    def refuse_failures(self, num_runs: int) -> None:
        """Raise StageError if runs failed."""
        if self.failed:
            raise StageError(
                f"{len(self.failed)} of {num_runs} combinations failed: {'; '.join(self.failed)}; "
                "the same command runs them again"
            )


def run_each(
    runs: Sequence[tuple[str, Opened]],
    console: Console,
    tell: Callable[[str], None],
    within: RunLog | None = None,
) -> Done:
    """Run what is not fresh of each run.

    Args:
        runs: words and opened recipe of each.
        console: output of the runs.
        tell: shows a line.
        within: MLflow run of which theirs become children.

    Raises:
        LockError: another driver works on the workdir.
    """
    fingerprints: dict[str, set[str]] = {}
    failed: list[str] = []
    for number, (words, opened) in enumerate(runs, start=1):
        tell(f"{number} of {len(runs)}: {words}")
        try:
            planned = _run(opened, console, within)
        # The other runs do not depend on this one. That a batch is larger than the split is an
        # error of the recipe which is not known before the split is prepared.
        except (RecipeError, StageError) as error:
            failed.append(words)
            tell(str(error))
        else:
            fingerprints[words] = {p.fingerprint for p in planned if p.stage.name in STAGES}
    return Done(fingerprints, failed)


def _run(opened: Opened, console: Console, within: RunLog | None) -> list[PlannedStage]:
    todo = [p for p in opened.workflow.plan(opened.store) if p.state is not State.FRESH]
    with miniweb_served(opened, todo) as served:
        # An unfinished training of another combination is no mistake here.
        planned = served.run(opened.store, console, new_training=True, within=within)
    if within is not None and not todo:
        record = {p.stage.name: p.fingerprint for p in planned}
        folder = opened.store.sub(f"{WORKFLOWS}/{fingerprint_of(record)}")
        tracker = Tracker(opened.recipe.tracking, opened.store)
        tracker.adopt(folder, opened.recipe.name, within)
    return planned


def folder_of(study: OpenedStudy) -> Store:
    """Return the folder of a study in the workdir of its runs."""
    store = study.runs[0].opened.store
    return store.sub(f"{STUDIES}/{fingerprint_of({'name': study.study.name})}")


@contextmanager
def tracked(study: OpenedStudy, tell: Callable[[str], None]) -> Iterator[RunLog]:
    """Open the MLflow run of a study, or continue it; end it as the block ends.

    Raises:
        LockError: another driver works on the workdir.
    """
    opened, folder = study.runs[0].opened, folder_of(study)
    with workdir_lock(opened.store):
        folder.write_bytes(RECIPE_FILE, dump_recipe(study.study.model_dump(mode="json")))
        tracker = Tracker(opened.recipe.tracking, opened.store, tell)
        log = tracker.run(folder, study.study.name)
    with terminal_state(log.finish):
        log.tag("num_runs", str(len(study.runs)))
        log.artifact(folder.fetch(RECIPE_FILE))
        yield log
