"""Workflows: a graph of stages over one workdir, planned and run.

``run`` does what the plan says is not fresh, in order, and writes down in the store which
fingerprints make up the workflow and which MLflow runs follow it.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import yaml
from rich.console import Console

from orchestration.cluster import start_ray
from orchestration.errors import PipelineError, RecipeError
from orchestration.manifest import Manifest, canonical_json, read_manifest
from orchestration.plan import IDENTITY, RECORD, WORKFLOWS, PlannedStage, State, make_plan
from orchestration.progress import StageProgress
from orchestration.recipe import Recipe
from orchestration.stage import Context, Stage, fingerprint_of
from orchestration.store import Store
from orchestration.tracking import Tracker

TIMING = "timing.json"
LOGS = "logs"
_STDERR = 2


@dataclass(frozen=True)
class Workflow:
    """Stages, given so that every input comes before the stage that reads it."""

    recipe: Recipe
    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        known: set[str] = set()
        for stage in self.stages:
            for name in (n for names in stage.inputs.values() for n in names):
                if name not in known:
                    raise ValueError(f"{stage.name}: its input {name} is not an earlier stage")
            if stage.name in known:
                raise ValueError(f"two stages are named {stage.name}")
            known.add(stage.name)

    def plan(self, workdir: Store) -> list[PlannedStage]:
        """Return the state of every stage."""
        return make_plan(self.stages, workdir)

    def run(
        self,
        workdir: Store,
        console: Console,
        *,
        only: str | None = None,
        until: str | None = None,
    ) -> list[PlannedStage]:
        """Do what is not fresh; return the plan that was carried out.

        Args:
            only: run just this stage; its inputs must be fresh.
            until: run this stage and what it needs.

        Raises:
            RecipeError: something is lacking; nothing was written.
            StageError: a stage failed; what was committed is kept.
        """
        plan = self.plan(workdir)
        todo = [p for p in self.select(plan, only, until) if p.state is not State.FRESH]
        lacking = [f"{p.stage.name}: {need}" for p in todo if (need := p.stage.requires())]
        if lacking:
            raise RecipeError("\n".join(["some stages cannot run, nothing was started", *lacking]))
        if todo:
            _Runner(self, workdir, console, plan).run(todo)
        return plan

    def select(
        self, plan: Sequence[PlannedStage], only: str | None, until: str | None
    ) -> list[PlannedStage]:
        """Return the part of a plan that ``only`` or ``until`` names.

        Raises:
            RecipeError: no such stage, or an input of ``only`` is not fresh.
        """
        by_name = {planned.stage.name: planned for planned in plan}
        for name in (only, until):
            if name is not None and name not in by_name:
                raise RecipeError(f"no stage is named {name!r}; stages: {', '.join(by_name)}")
        if only:
            names = {n for names in by_name[only].stage.inputs.values() for n in names}
            unfit = sorted(n for n in names if by_name[n].state is not State.FRESH)
            if unfit:
                raise RecipeError(f"{only} reads {', '.join(unfit)}, not fresh; use --until {only}")
            return [by_name[only]]
        if until:
            wanted = {until}
            for planned in reversed(plan):
                if planned.stage.name in wanted:
                    wanted |= {n for names in planned.stage.inputs.values() for n in names}
            return [planned for planned in plan if planned.stage.name in wanted]
        return list(plan)


class _Runner:
    """Runs the stages of one plan."""

    def __init__(
        self, workflow: Workflow, workdir: Store, console: Console, plan: Sequence[PlannedStage]
    ) -> None:
        self.workflow = workflow
        self.workdir = workdir
        self.console = console
        self.fingerprints = {planned.stage.name: planned.fingerprint for planned in plan}
        self.tracker = Tracker(workflow.recipe.tracking, workdir.root)

    def run(self, todo: Sequence[PlannedStage]) -> None:
        record = self._write_record()
        with _log_file(self.workdir) as logs, self._failures_name(logs.root):
            # Ray and MLflow both take seconds to start and wait for different things.
            with ThreadPoolExecutor(1) as pool:
                parent_run = pool.submit(self.tracker.run, record, self.workflow.recipe.name)
                start_ray(self.workflow.recipe.cluster, logs.root)
                parent = parent_run.result()
            recipe = self.workflow.recipe.model_dump(mode="json")
            parent.params(recipe)
            with record.write("recipe.yaml") as file:
                file.write(yaml.safe_dump(recipe, sort_keys=False).encode())
            parent.artifact(record.path("recipe.yaml"))
            with _terminal_state(parent.finish):
                for planned in todo:
                    self._run_stage(planned, parent)

    def _run_stage(self, planned: PlannedStage, parent: Any) -> None:
        stage, folder = planned.stage, self.workdir.sub(planned.path)
        folder.write_bytes(IDENTITY, canonical_json(planned.identity))
        log = self.tracker.run(folder, stage.name, parent)
        log.params(stage.params.model_dump(mode="json"))
        progress = StageProgress(stage.name, folder, self.console)
        context = Context(
            stage=stage,
            fingerprint=planned.fingerprint,
            folder=folder,
            input_folders={
                name: self.workdir.sub(f"{name}/{self.fingerprints[name]}")
                for names in stage.inputs.values()
                for name in names
            },
            progress=progress,
            log=log,
        )
        started = time.monotonic()
        with _terminal_state(log.finish):
            try:
                with progress.showing():
                    stage.run(context)
            finally:
                seconds = add_seconds(folder, time.monotonic() - started)
            manifest = read_manifest(folder)
            log.metrics({**stage_metrics(manifest), "seconds": seconds}, step=0)
            log.artifact(folder.path("manifest.json"))
        rejected = manifest.rejects.total()
        self.console.print(
            f"[green]✓[/] {stage.name}: {manifest.num_rows_in} rows in, "
            f"{manifest.num_rows_out()} out, {rejected} rejects, {seconds:.1f} s",
            highlight=False,
        )

    def _write_record(self) -> Store:
        record = {
            "name": self.workflow.recipe.name,
            "stages": self.fingerprints,
            "started_at": time.time(),
        }
        folder = self.workdir.sub(f"{WORKFLOWS}/{fingerprint_of(self.fingerprints)}")
        folder.write_bytes(RECORD, json.dumps(record, indent=1).encode())
        return folder

    @contextmanager
    def _failures_name(self, logs: Any) -> Iterator[None]:
        try:
            yield
        except PipelineError as error:
            raise type(error)(f"{error}\nLogs: {logs} (Ray's own: {logs / 'ray'})") from error


def stage_metrics(manifest: Manifest) -> dict[str, float]:
    """Return a stage's numbers under the names that MLflow, the summary and reports share."""
    metrics: dict[str, float] = {
        "num_rows_in": manifest.num_rows_in,
        "num_rows_out": manifest.num_rows_out(),
        "num_bytes": manifest.num_bytes,
    }
    metrics |= {f"rejects/{reason}": n for reason, n in manifest.rejects.items()}
    metrics |= {f"counters/{name}": n for name, n in manifest.counters.items()}
    return metrics | dict(manifest.numbers)


def add_seconds(folder: Store, seconds: float) -> float:
    """Add the seconds of one attempt at a stage; return the sum over attempts."""
    total = stage_seconds(folder) + seconds
    folder.write_bytes(TIMING, json.dumps({"seconds": round(total, 3)}).encode())
    return total


def stage_seconds(folder: Store) -> float:
    """Return the seconds that a stage took, over its finished and failed attempts."""
    return float(json.loads(folder.read(TIMING))["seconds"]) if folder.exists(TIMING) else 0.0


@contextmanager
def _terminal_state(finish: Callable[[str], None]) -> Iterator[None]:
    """End an MLflow run with the state that is true."""
    try:
        yield
    except KeyboardInterrupt:
        finish("KILLED")
        raise
    except BaseException:
        finish("FAILED")
        raise
    finish("FINISHED")


@contextmanager
def _log_file(workdir: Store) -> Iterator[Store]:
    """Send every library's log to a file of the workdir while the block runs.

    Ray's native code writes straight to the standard error of the process, so that goes there too.
    """
    logs = workdir.sub(LOGS)
    logs.root.mkdir(parents=True, exist_ok=True)
    path = logs.root / time.strftime("%Y%m%d-%H%M%S.log")
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(min(root.level, logging.INFO) or logging.INFO)
    sys.stderr.flush()
    terminal = os.dup(_STDERR)
    with path.open("ab") as file:
        os.dup2(file.fileno(), _STDERR)
    try:
        yield logs
    finally:
        sys.stderr.flush()
        os.dup2(terminal, _STDERR)
        os.close(terminal)
        root.removeHandler(handler)
        handler.close()
