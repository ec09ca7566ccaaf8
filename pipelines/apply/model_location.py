"""Where a model lies, and the digest of its content, by which outputs of two models are told apart.

A workdir stands for the export of its newest workflow and a name on the hub for its files, so a
recipe holds what they stand for: a training that completes meanwhile changes nothing.
"""

import hashlib
import json
from pathlib import Path
from typing import Final

from orchestration.errors import RecipeError
from orchestration.fingerprint import canonical_json, file_digest
from orchestration.params import OrOutput
from orchestration.storage.store import Store
from pipelines.finetune.export import TASK_FILE
from pipelines.finetune.start_source import open_folder
from pipelines.inference.source import export_of
from pipelines.pretrain.start_source import is_folder


def located(model: str) -> str:
    """Return the folder or file that a model's location stands for.

    Raises:
        RecipeError: there is none.
    """
    if not is_folder(model):
        return model
    return export_of(model)


def digest_of(location: str) -> str:
    """Return a digest of a model: of its weights, configuration, vocabulary, labels and task.

    Args:
        location: what :func:`located` returned.

    Raises:
        RecipeError: there is no model.
    """
    if not is_folder(location):
        return file_digest(Path(location))
    folder = open_folder(location)
    parts = [folder.digest(), _task_of(folder.store)]
    return f"sha256:{hashlib.sha256(canonical_json(parts)).hexdigest()}"


def task_name_of(location: str) -> str | None:
    """Return the name of the task that a model was fine-tuned for; None after a pretraining."""
    task = _task_of(open_folder(location).store) if is_folder(location) else None
    return None if task is None else str(task.get("name"))


def _task_of(store: Store) -> dict[str, object] | None:
    if not store.exists(TASK_FILE):
        return None
    try:
        task = json.loads(store.read(TASK_FILE))["task"]
    except (ValueError, KeyError, TypeError, RecursionError):
        task = None
    if not isinstance(task, dict):
        raise RecipeError(f"{store.uri_of(TASK_FILE)}: no description of a task")
    return task


MODEL: Final = OrOutput(is_folder, digest_of)
"Marks a parameter that names a model."
