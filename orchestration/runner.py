"""Running the stages of a plan: the lock, the log file, Ray, MLflow, and the order of stages.

A stage starts when its inputs are complete and fewer than ``jobs`` stages are running. If a stage
fails, its error is shown at once and its traceback goes to the log; stages that do not depend on
it still run, unless the counts of rows so far show that the workflow cannot be completed. Ctrl-C
or SIGTERM stops between slices and marks the MLflow runs KILLED; a second Ctrl-C ends the process
at once.
"""

import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from rich.console import Console
from rich.markup import escape

from orchestration.cluster import check_shared, start_ray
from orchestration.errors import PipelineError, StageError, StoreError
from orchestration.external_files import check_before_commit, check_unchanged
from orchestration.fingerprint import canonical_json, fingerprint_of
from orchestration.generations import content_id
from orchestration.integrity import check_lineage, verify_inputs
from orchestration.manifest import MANIFEST, Manifest, read_manifest
from orchestration.masking import masked_values
from orchestration.plan import IDENTITY, RECORD, WORKFLOWS, Impossible, PlannedStage, State
from orchestration.recipe import Recipe
from orchestration.recipe_text import dump_recipe
from orchestration.reporting.attempts import (
    ATTEMPT,
    combined_error,
    error_words,
    named_after,
    write_attempt,
)
from orchestration.reporting.logs import log_file
from orchestration.reporting.progress import StageProgress, showing
from orchestration.reporting.results import result_line, stage_metrics
from orchestration.reporting.run_log import RunLog, terminal_state
from orchestration.reporting.tracking import Tracker
from orchestration.reporting.usage import Usage, add_usage
from orchestration.reporting.versions import installed_versions
from orchestration.resources import missing_in_cluster
from orchestration.retries import run_with_rounds
from orchestration.stage import Context
from orchestration.stage_threads import ending_at_once, started, terminated_as_interrupted
from orchestration.storage.lock import Lock, workdir_lock
from orchestration.storage.store import Store

logger = logging.getLogger(__name__)


class Runner:
    """Runs the stages of one plan."""

    def __init__(
        self,
        recipe: Recipe,
        workdir: Store,
        console: Console,
        plan: Sequence[PlannedStage],
        complete: dict[str, Manifest],
        *,
        jobs: int,
        verify: bool,
        impossible: Impossible,
        within: RunLog | None = None,
    ) -> None:
        self.recipe = recipe
        self.workdir = workdir
        self.console = console
        self.fingerprints = {planned.stage.name: planned.fingerprint for planned in plan}
        self.complete = complete
        "Manifests of the complete stages by name."
        self.impossible = impossible
        self.within = within
        "MLflow run of which the workflow's run becomes a child."
        self.jobs = jobs
        self.verify = verify
        self.tracker = Tracker(recipe.tracking, workdir, self._tell)
        self.stopping = threading.Event()
        "Set when no further slice may be started."
        self.changed: set[str] = set()
        "Stages whose content changed, and the stages that were put off for that reason."
        self.graceful: set[str] = set()
        "Stages that end by themselves when stopped."
        self.open_logs: list[RunLog] = []
        "MLflow runs of the running stages."

    def run(self, todo: Sequence[PlannedStage]) -> bool:
        """Run the stages; return whether the others must be planned again.

        That is so if the content of an output differs from the one that the plan knew.

        Raises:
            PipelineError: stages failed, or the workflow cannot be completed; the message has a
                line for each failure and names the log.
        """
        with (
            workdir_lock(self.workdir) as lock,
            log_file(self.workdir) as logs,
            _naming_logs(str(logs)),
        ):
            record = self._write_record()
            # Ray and MLflow each take seconds to start, so they start at the same time.
            with ThreadPoolExecutor(1) as pool:
                parent_run = pool.submit(self.tracker.run, record, self.recipe.name, self.within)
                start_ray(self.recipe.cluster, logs)
                parent = parent_run.result()
            check_shared(self.workdir)
            parent.params(self.recipe.model_dump(mode="json"))
            parent.artifact(record.fetch("recipe.yaml"))
            with (
                terminal_state(parent.finish),
                showing(self.console) as progress,
                terminated_as_interrupted(),
            ):
                self._run_all(todo, parent, lock, progress)
        return bool(self.changed)

    def _run_all(
        self, todo: Sequence[PlannedStage], parent: RunLog, lock: Lock, progress: Any
    ) -> None:
        waiting = list(todo)
        pending = {planned.stage.name for planned in todo}
        running: dict[Future[None], str] = {}
        failed: dict[str, BaseException] = {}
        unreached: dict[str, str] = {}
        try:
            while waiting or running:
                reasons = self.impossible(self.complete) if waiting else ()
                if reasons:
                    failed["workflow"] = StageError("\n".join(reasons))
                    self.console.print(
                        f"[red]✗[/] {escape(str(failed['workflow']))}", highlight=False
                    )
                    waiting.clear()
                for planned in list(waiting):
                    name, needs = planned.stage.name, set(planned.stage.input_names)
                    if broken := needs & (failed.keys() | unreached.keys()):
                        waiting.remove(planned)
                        unreached[name] = min(broken)
                    elif needs & self.changed:
                        waiting.remove(planned)
                        self.changed.add(name)
                    elif not needs & pending and len(running) < self.jobs:
                        waiting.remove(planned)
                        work = partial(self._run_stage, planned, parent, lock, progress)
                        running[started(work, name)] = name
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(future)
                    if error := future.exception():
                        failed[name] = error
                    pending.discard(name)
        except KeyboardInterrupt:
            self._stop(running)
            raise
        if failed:
            raise combined_error(failed, unreached)

    def _stop(self, running: Mapping[Future[None], str]) -> None:
        """Abandon the running stages, except that trainings end by themselves."""
        self.stopping.set()
        waited = [future for future, name in running.items() if name in self.graceful]
        words = "trainings save a checkpoint" if waited else "running slices are abandoned"
        self.console.print(f"stopping: {words}; press Ctrl-C again to end at once")
        with ending_at_once():
            wait(waited)
            for future, name in running.items():
                if future.done() and future.exception() is None:
                    continue
                with suppress(StoreError):
                    write_attempt(self._folder_of(name), "interrupted")
            for log in list(self.open_logs):
                log.finish("KILLED")

    def _folder_of(self, name: str) -> Store:
        return self.workdir.sub(f"{name}/{self.fingerprints[name]}")

    def _run_stage(self, planned: PlannedStage, parent: RunLog, lock: Lock, shown: Any) -> None:
        try:
            self._attempt(planned, parent, lock, shown)
        except BaseException as error:
            name, words = planned.stage.name, error_words(error)
            if self.stopping.is_set():
                logger.info("%s: stopped", name, exc_info=error)
            else:
                logger.error("%s failed: %s", name, error, exc_info=error)
                self.console.print(f"[red]✗[/] {escape(named_after(name, words))}", highlight=False)
                with suppress(StoreError):  # a store that is down must not hide the error
                    write_attempt(self._folder_of(name), "failed", words)
            raise

    def _attempt(self, planned: PlannedStage, parent: RunLog, lock: Lock, shown: Any) -> None:
        stage, folder = planned.stage, self.workdir.sub(planned.path)
        if planned.state is State.STALE and folder.exists(MANIFEST):
            raise StageError(
                f"{stage.name} was {planned.reason}; remove {folder.uri} to compute it again"
            )
        folder.write_bytes(IDENTITY, canonical_json(planned.identity))
        inputs = {name: self._folder_of(name) for name in stage.input_names}
        check_unchanged(stage, planned.identity)
        check_lineage(inputs)
        if self.verify:
            verify_inputs(inputs)
        log = self.tracker.run(folder, stage.name, parent)
        log.params(stage.params.model_dump(mode="json"))
        log.inputs(inputs)
        progress = StageProgress(stage.name, folder, shown)
        if missing := missing_in_cluster(stage.resources):
            self.console.print(f"{stage.name} waits for nodes: {missing}", highlight=False)

        def before_commit() -> None:
            lock.check()
            check_before_commit(stage, planned.identity, folder)

        context = Context(
            stage=stage,
            fingerprint=planned.fingerprint,
            folder=folder,
            input_folders=inputs,
            progress=progress,
            log=log,
            slices=self.recipe.slices,
            before_commit=before_commit,
            stopping=self.stopping,
            graceful=self.graceful,
        )
        work = stage.expects().rows
        started = time.monotonic()
        self.open_logs.append(log)
        write_attempt(folder, "running")
        try:
            with terminal_state(log.finish, self.stopping):
                try:
                    with progress.showing():
                        run_with_rounds(context)
                finally:
                    attempt = Usage(time.monotonic() - started, context.memory, work)
                    usage = add_usage(folder, attempt)
                manifest = read_manifest(folder)
                log.metrics({**stage_metrics(manifest), "duration_s": usage.seconds}, step=0)
                log.artifact(folder.fetch("manifest.json"))
        finally:
            self.open_logs.remove(log)
        folder.remove(ATTEMPT)
        self.complete[stage.name] = manifest
        if content_id(folder) != planned.content_id:
            self.changed.add(stage.name)
        line = result_line(stage.name, folder, manifest, usage.seconds, progress.remarks)
        self.console.print(line, highlight=False, soft_wrap=True)

    def _tell(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _write_record(self) -> Store:
        record = {
            "name": self.recipe.name,
            "stages": self.fingerprints,
            "started_at": time.time(),
            "versions": installed_versions(),
        }
        folder = self.workdir.sub(f"{WORKFLOWS}/{fingerprint_of(self.fingerprints)}")
        recipe = masked_values(self.recipe.model_dump(mode="json"))
        folder.write_bytes("recipe.yaml", dump_recipe(recipe))
        folder.write_bytes(RECORD, json.dumps(record, indent=1).encode())
        return folder


@contextmanager
def _naming_logs(logs: str) -> Iterator[None]:
    """Append the location of the logs to the message of an error."""
    try:
        yield
    except PipelineError as error:
        raise type(error)(f"{error}\nLogs: {logs} (Ray's own: {logs}/ray)") from error
