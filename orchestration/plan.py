"""Plans: for each stage of a workflow, whether its output exists, and if not, why."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from orchestration.checkpoint_files import newest_whole, step_of
from orchestration.fingerprint import fingerprint_of
from orchestration.generations import content_id
from orchestration.manifest import MANIFEST, PARTS, Manifest, manifest_sha256, read_manifest
from orchestration.stage import Stage
from orchestration.storage.store import Store
from orchestration.training import TrainingParams

IDENTITY = "stage.json"
WORKFLOWS = "workflows"
RECORD = "record.json"
_OF_A_RECORD: Final[Mapping[str, type | tuple[type, ...]]] = {
    "name": str,
    "stages": dict,
    "started_at": (int, float),
}
"Keys of a workflow's record."

Impossible = Callable[[Mapping[str, Manifest]], Sequence[str]]
"Returns why a workflow cannot be completed, given the manifests of complete stages by name."


class State(StrEnum):
    """State of a stage's output under its current fingerprint."""

    FRESH = "fresh"
    "The output is complete."
    INTERRUPTED = "interrupted"
    "The stage was started; a run does the missing slices or steps."
    STALE = "stale"
    "Only an output with other parameters or inputs exists; a run makes a new one beside it."
    MISSING = "missing"
    "The stage was never started."


@dataclass(frozen=True)
class PlannedStage:
    """One line of a plan."""

    stage: Stage
    fingerprint: str
    identity: Mapping[str, Any]
    state: State
    reason: str
    "Why the stage is in this state."
    content_id: str
    "Name of the output's content, which enters the fingerprints of dependent stages."
    unfinished: tuple[str, ...] = ()
    "Trainings of this stage with other settings that are not complete, if this one is not started."
    manifest: Manifest | None = None
    "The manifest of a complete output; None in every other state."

    @property
    def path(self) -> str:
        """Path of the stage's folder within the workdir."""
        return f"{self.stage.name}/{self.fingerprint}"


def make_plan(stages: Sequence[Stage], workdir: Store) -> list[PlannedStage]:
    """Compare each stage with the outputs in the workdir.

    Args:
        stages: stages, each after its inputs.
        workdir: folder of the outputs.

    Raises:
        RecipeError: an external file is missing.
    """
    previous = latest_record(workdir)
    old = previous["stages"] if previous else {}
    inputs: dict[str, str] = {}
    plan: list[PlannedStage] = []
    for stage in stages:
        identity = stage.identity(inputs)
        fingerprint = fingerprint_of(identity)
        state, reason = _judge(workdir, stage.name, fingerprint, identity, old.get(stage.name))
        folder = workdir.sub(f"{stage.name}/{fingerprint}")
        manifest = read_manifest(folder) if state is State.FRESH else None
        if manifest is not None and (changed := changed_parents(workdir, manifest)):
            state, manifest = State.STALE, None
            reason = f"made from another content of {', '.join(changed)}"
        unfinished: tuple[str, ...] = ()
        if state in (State.STALE, State.MISSING) and isinstance(stage.params, TrainingParams):
            unfinished = tuple(_unfinished(workdir, stage.name, fingerprint, identity))
            reason = "; ".join(unfinished) or reason
        inputs[stage.name] = content_id(folder)
        plan.append(
            PlannedStage(
                stage,
                fingerprint,
                identity,
                state,
                reason,
                inputs[stage.name],
                unfinished=unfinished,
                manifest=manifest,
            )
        )
    return plan


def changed_parents(workdir: Store, manifest: Manifest) -> list[str]:
    """Return the names of a committed output's parents whose manifests have changed since.

    A parent without a manifest is about to be computed again and is not judged.
    """
    parents = [parent for role in manifest.parents.values() for parent in role]
    changed = []
    for parent in parents:
        present = workdir.sub(f"{parent.stage}/{parent.fingerprint}")
        if present.exists(MANIFEST) and manifest_sha256(present) != parent.manifest_sha256:
            changed.append(parent.stage)
    return list(dict.fromkeys(changed))


def complete_manifests(plan: Sequence[PlannedStage]) -> dict[str, Manifest]:
    """Return the manifest of each complete stage of a plan, by stage name."""
    return {p.stage.name: p.manifest for p in plan if p.manifest is not None}


def latest_record(workdir: Store, having: Collection[str] = ()) -> dict[str, Any] | None:
    """Return the record of the workflow that was started last in this workdir, or None.

    Args:
        workdir: of any number of workflows.
        having: names of stages, one of which the workflow has; none of them allows any workflow.
    """
    latest: dict[str, Any] | None = None
    for record in records_of(workdir):
        if having and record["stages"].keys().isdisjoint(having):
            continue
        if latest is None or record["started_at"] > latest["started_at"]:
            latest = record
    return latest


def recipe_path(stages: Mapping[str, str]) -> str:
    """Return where the recipe of a workflow lies in the workdir, by its record's ``stages``."""
    return f"{WORKFLOWS}/{fingerprint_of(stages)}/recipe.yaml"


def records_of(workdir: Store) -> Iterator[dict[str, Any]]:
    """Yield the record of every workflow that was started in this workdir."""
    for name in workdir.folders(WORKFLOWS):
        path = f"{WORKFLOWS}/{name}/{RECORD}"
        if workdir.exists(path):
            yield workdir.read_json(path, _OF_A_RECORD)


def _judge(
    workdir: Store, name: str, fingerprint: str, identity: Mapping[str, Any], old: str | None
) -> tuple[State, str]:
    folder = workdir.sub(f"{name}/{fingerprint}")
    if folder.exists(MANIFEST):
        return State.FRESH, "same parameters, same inputs"
    if folder.exists(IDENTITY):
        parts = len(folder.names(PARTS, ".json"))
        return State.INTERRUPTED, f"started, {parts} slices committed" if parts else "started"
    before = f"{name}/{old}/{IDENTITY}"
    if old is not None and workdir.exists(before):
        return State.STALE, "; ".join(differences(workdir.read_json(before, {}), identity))
    return State.MISSING, "never run"


def _unfinished(
    workdir: Store, name: str, fingerprint: str, identity: Mapping[str, Any]
) -> Iterator[str]:
    """Yield a description of each unfinished training of a stage under another fingerprint."""
    for other in workdir.folders(name):
        folder = workdir.sub(f"{name}/{other}")
        if other == fingerprint or folder.exists(MANIFEST) or not folder.exists(IDENTITY):
            continue
        if (checkpoint := newest_whole(folder, read=False)) is not None:
            before = folder.read_json(IDENTITY, {"params": dict})
            changes = "; ".join(differences(before, identity))
            total = before["params"]["steps"]
            yield f"{step_of(checkpoint)} of {total} steps are done in {name}/{other}: {changes}"


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return a description of each difference between two identities of one stage."""
    words = []
    if before.get("version") != now["version"]:
        words.append(f"code version: {before.get('version')} → {now['version']}")
    words += _changed(before.get("params", {}), now["params"], "")
    for role, inputs in now["inputs"].items():
        old = dict(map(tuple, before.get("inputs", {}).get(role, [])))
        words += [f"input {name} changed" for name, fp in inputs if old.get(name) != fp]
        words += [f"input {name} removed" for name in old if name not in dict(inputs)]
    return words


def _changed(before: Any, now: Any, key: str) -> list[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        return [
            word
            for name in sorted(before.keys() | now.keys())
            for word in _changed(before.get(name), now.get(name), f"{key}.{name}" if key else name)
        ]
    if before == now:
        return []
    if str(now).startswith("sha256:"):
        return [f"{key}: content changed"]
    return [f"{key}: {before} → {now}"]
