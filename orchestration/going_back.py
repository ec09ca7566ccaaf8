"""Going back to an earlier checkpoint of a training, for instance behind a divergence.

The stage's folder and its fingerprint stay; what was done is recorded in ``branches.json``, which
is committed with the output (:mod:`orchestration.branches`).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from orchestration.branches import Branch, read_branches, records_after, write_branches
from orchestration.checkpoint_files import checkpoints, damage_of, step_of
from orchestration.errors import RecipeError, StageError
from orchestration.manifest import MANIFEST
from orchestration.plan import PlannedStage, State
from orchestration.stage import Context
from orchestration.storage.store import Store
from orchestration.training import TrainingParams


def went_back(planned: PlannedStage, workdir: Store, branch: Branch) -> PlannedStage | None:
    """Return a planned training whose run goes back first; None if it is complete and has done so.

    Raises:
        RecipeError: there is no checkpoint of that step, or no step after it; or the checkpoints
            are those of a training with other settings.
    """
    folder, params = workdir.sub(planned.path), planned.stage.params
    if isinstance(params, TrainingParams) and params.steps == branch.from_step:
        raise RecipeError(
            f"--from-step {branch.from_step}: {planned.stage.name} ends with that step; give the "
            "step of an earlier checkpoint"
        )
    if _is_done(folder, branch):
        return None if folder.exists(MANIFEST) else planned
    if planned.unfinished:  # those with these settings would be none
        raise RecipeError(
            f"--from-step {branch.from_step}: {planned.stage.name} has other settings than its "
            f"training of before ({'; '.join(planned.unfinished)}); undo the change"
        )
    _checkpoint_of(folder, branch.from_step, planned.stage.name)
    run = partial(_run, planned.stage.run, branch)
    return replace(planned, state=State.INTERRUPTED, stage=replace(planned.stage, run=run))


def go_back(folder: Store, branch: Branch, name: str, tell: Callable[[str], None]) -> None:
    """Begin a branch; the checkpoints after its first step are never loaded again.

    Records of skipped steps after it are removed. An output that was complete is no longer so.

    Raises:
        RecipeError: there is no checkpoint of that step.
        StageError: the checkpoint is damaged.
    """
    if _is_done(folder, branch):
        return
    start = _checkpoint_of(folder, branch.from_step, name)
    if damage := damage_of(start):
        raise StageError(
            f"{name} cannot go back to step {branch.from_step}: {damage}; give the step of another "
            "checkpoint"
        )
    newer = [c.name for c in checkpoints(folder) if step_of(c) > branch.from_step]
    folder.remove(MANIFEST)
    records = records_after(folder, branch.from_step)
    for record in records:
        folder.remove(record)
    write_branches(folder, [*read_branches(folder), branch])
    aside = f"; set aside: {', '.join(newer)}" if newer else ""
    tell(f"{name}: goes back to step {branch.from_step}{aside}")
    if records:
        tell(f"{name}: removes the records of {len(records)} skipped steps after it")
    if branch.skip_steps:
        first = branch.from_step + 1
        tell(f"{name}: leaves out the data of {branch.skip_steps} steps from step {first} on")


def _run(run: Callable[[Context], None], branch: Branch, context: Context) -> None:
    def tell(line: str) -> None:
        context.progress.console.print(line, highlight=False, soft_wrap=True)

    go_back(context.folder, branch, context.stage.name, tell)
    run(context)


def _is_done(folder: Store, branch: Branch) -> bool:
    """Return whether the training went back in this very way last.

    The command is then the repetition of one that was killed, and the training continues.
    """
    return read_branches(folder)[-1:] == (branch,)


def _checkpoint_of(folder: Store, step: int, name: str) -> Store:
    """Return the checkpoint of a step."""
    found = {step_of(c): c for c in checkpoints(folder) if damage_of(c, read=False) is None}
    if step not in found:
        there = ", ".join(map(str, sorted(found))) or "none"
        raise RecipeError(
            f"--from-step {step}: {name} has no checkpoint of that step in {folder.uri}; "
            f"there are checkpoints of steps: {there}"
        )
    return found[step]
