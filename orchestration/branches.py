"""Branches of a training: from which step it went back, and which data it leaves out since.

``branches.json`` in the stage's folder has one entry for each time that the training went back.
Branch 0 is the training before the first of them. The name of a checkpoint holds the number of its
branch, and a checkpoint counts only if no later branch begins before its step. So one write sets
all newer checkpoints aside at once, also on an object store, where nothing can be renamed.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Final

from orchestration.manifest import File, file_of
from orchestration.storage.store import Store

BRANCHES: Final = "branches.json"
RECORDS: Final = "skipped"
"Folder of the records of skipped steps; the name of a record begins with its step, from 1."


@dataclass(frozen=True)
class Branch:
    """A training that continues from an earlier step of itself."""

    from_step: int
    "Number of steps done before it."
    skip_steps: int
    "Number of steps whose data it leaves out at its beginning."


def read_branches(folder: Store) -> tuple[Branch, ...]:
    """Return the branches of a stage's folder in the order of their making, without branch 0."""
    if not folder.exists(BRANCHES):
        return ()
    kinds = {field.name: int for field in fields(Branch)}
    return tuple(Branch(**entry) for entry in folder.read_json_list(BRANCHES, kinds))


def write_branches(folder: Store, branches: Iterable[Branch]) -> None:
    """Replace the record of the branches."""
    folder.write_bytes(BRANCHES, json.dumps([asdict(each) for each in branches]).encode())


def record_name(step: int) -> str:
    """Return the beginning of the name of a record, for a step counted from 0."""
    return f"step-{step + 1:08d}"


def records_after(folder: Store, num_steps: int) -> list[str]:
    """Return the paths of the records of steps after the first ``num_steps``."""
    steps = {name: name.removeprefix("step-").partition("-")[0] for name in folder.folders(RECORDS)}
    return [
        f"{RECORDS}/{name}"
        for name, step in steps.items()
        if step.isdecimal() and int(step) > num_steps
    ]


def counts(branches: Sequence[Branch], number: int, step: int) -> bool:
    """Return whether a checkpoint of branch ``number`` after ``step`` steps is not set aside."""
    is_known = number <= len(branches)
    return is_known and all(step <= later.from_step for later in branches[number:])


def data_step(branches: Sequence[Branch], step: int) -> int:
    """Return the step whose data the training takes in ``step``; both from 0."""
    return step + sum(each.skip_steps for each in _lasting(branches) if each.from_step <= step)


def branch_files(folder: Store) -> list[File]:
    """Return the record of the branches, if there is one, as a file to commit."""
    return [file_of(folder, BRANCHES)] if folder.exists(BRANCHES) else []


def branch_numbers(folder: Store) -> dict[str, float]:
    """Return how often a training went back and how many steps of data it left out, if it did."""
    branches = read_branches(folder)
    if not branches:
        return {}
    left_out = sum(each.skip_steps for each in _lasting(branches))
    return {"num_times_back": len(branches), "num_steps_of_data_left_out": left_out}


def _lasting(branches: Sequence[Branch]) -> list[Branch]:
    """Return the branches of which some steps belong to the training of now."""
    return [
        branch
        for i, branch in enumerate(branches)
        if all(branch.from_step < later.from_step for later in branches[i + 1 :])
    ]
