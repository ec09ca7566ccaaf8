"""Where a model lies, and the digest of its content, by which outputs of two models are told apart.

A workdir stands for the export of its newest training and a name on the hub for its files, so a
recipe holds what they stand for: a training that completes meanwhile changes nothing.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from model.network.pretrained import NotAModel
from model.network.pretrained import located as find_model
from orchestration.errors import RecipeError
from orchestration.fingerprint import canonical_json, file_digest
from orchestration.params import OrOutput, is_uri
from orchestration.storage.store import Store
from pipelines.finetune.start_source import open_folder
from pipelines.finetune.task_file import TASK_FILE
from pipelines.inference.source import export_of
from pipelines.inference.uses import CannotDo
from pipelines.pretrain.start_source import is_folder


def located(model: str) -> str:
    """Return the folder or file that a model's location stands for.

    Raises:
        RecipeError: there is none.
    """
    with as_recipe_error():
        if not (is_uri(model) and is_folder(model)):
            model = str(find_model(model))
        return export_of(model) if is_folder(model) else model


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
    parts = [folder.digest(), _task_digest(folder.store)]
    return f"sha256:{hashlib.sha256(canonical_json(parts)).hexdigest()}"


def _task_digest(store: Store) -> list[object] | None:
    """Return the task of a fine-tuned model and digests of the files that it names."""
    if not store.exists(TASK_FILE):
        return None
    try:
        task = dict(json.loads(store.read(TASK_FILE))["task"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RecipeError(f"{store.uri_of(TASK_FILE)}: no description of a task") from None
    names = sorted({str(value) for value in task.values() if isinstance(value, str)})
    files = [name for name in names if "/" not in name and store.exists(name)]
    return [task, *(hashlib.sha256(store.read(name)).hexdigest() for name in files)]


@contextmanager
def as_recipe_error() -> Iterator[None]:
    """Turn what a model says that cannot be loaded or has no such head into a RecipeError."""
    try:
        yield
    except (NotAModel, CannotDo) as error:
        raise RecipeError(str(error)) from None


MODEL: Final = OrOutput(is_folder, digest_of)
"Marks a parameter that names a model."
