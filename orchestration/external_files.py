"""Local files that a recipe names: compared with what they were when the workflow was planned.

A file given by URI is compared while it is copied; see :mod:`orchestration.storage.remote_files`.
"""

from collections.abc import Mapping
from typing import Any

from orchestration.checkpoint_files import RAY_TRAIN
from orchestration.errors import RecipeError, StageError
from orchestration.fingerprint import semantic
from orchestration.params import external_files
from orchestration.plan import differences
from orchestration.stage import Stage
from orchestration.storage.store import Store


def check_unchanged(stage: Stage, planned: Mapping[str, Any]) -> None:
    """Check that the files which a stage's parameters name are those that it was planned with.

    Args:
        stage: the stage.
        planned: its identity in the plan.

    Raises:
        StageError: a file has changed or is missing.
    """
    locations = {file.key: file.location for file in external_files(stage.params)}
    if not locations:
        return
    try:
        now = {**planned, "params": {**planned["params"], **semantic(stage.params)}}
    except RecipeError as error:
        raise StageError(f"{stage.name}: {error}") from None
    if changed := differences(planned, now):
        names = [locations.get(line.partition(": ")[0], line) for line in changed]
        raise StageError(
            f"{stage.name}: changed since the workflow was planned: {', '.join(names)}; nothing of "
            "it is committed, run again"
        )


def check_before_commit(stage: Stage, planned: Mapping[str, Any], folder: Store) -> None:
    """Check as :func:`check_unchanged` does; forget what was made from changed files.

    Some of it may come from the old content and some from the new one. Checkpoints are kept.

    Raises:
        StageError: a file has changed or is missing.
    """
    try:
        check_unchanged(stage, planned)
    except StageError:
        for name in folder.folders():
            if name != RAY_TRAIN:
                folder.remove(name)
        raise
