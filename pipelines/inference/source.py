"""What a model is loaded from: the folder of an export, a workdir, a file, or a name on the hub.

========  ==================================================================================
export    a folder that a stage ``export`` or ``PretrainedModel.save_pretrained`` wrote
workdir   of a pretraining or a fine-tuning: the export of its newest workflow
training  a checkpoint or the output of ``pretrain``
file      weights in the official layout or this project's; it has no text tokenizer
hub       ``owner/name`` or ``owner/name@revision``, which holds an export
========  ==================================================================================
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter
from torch import Tensor

from model import BEiT3Config
from orchestration.errors import PipelineError
from orchestration.plan import WORKFLOWS, latest_record
from orchestration.storage.store import Store
from pipelines.finetune.export import TASK_FILE
from pipelines.finetune.registry import AnyTask
from pipelines.finetune.start_source import labels_of
from pipelines.finetune.task import Task
from pipelines.pretrain.start_source import EXPORT, Folder, is_folder, open_folder


class NotAModel(ValueError):
    """There is no model that can be loaded; the message is one sentence."""


@dataclass(frozen=True)
class Source:
    """The parts of a model."""

    name: str
    "As it was asked for, for messages."
    config: BEiT3Config
    state: Mapping[str, Tensor]
    "Of the network; of a fine-tuned one the encoder as ``network.…`` and the head."
    task: Task | None = None
    "What the network was fine-tuned for; None after a pretraining."
    labels: tuple[str, ...] = ()
    "In the order of the head's scores."
    text_tokenizer: Path | None = None
    "SentencePiece model."
    image_tokenizer: Path | None = None
    "VQ-KD."


def open_source(location: str | Path) -> Source:
    """Read the parts of a model.

    Raises:
        NotAModel: there is none, or it is not whole.
    """
    location = str(location)
    try:
        folder = open_folder(export_of(location)) if is_folder(location) else None
        if folder is None:
            raise NotAModel(f"{location}: not a folder")
        task = _task(folder)
        return Source(
            location,
            folder.config(),
            folder.weights(),
            task,
            tuple(labels_of(folder) or ()) if task is not None else (),
            folder.text_tokenizer(),
            folder.image_tokenizer(),
        )
    except PipelineError as error:
        raise NotAModel(str(error)) from None


def export_of(location: str) -> str:
    """Return the folder of the export of a workdir's newest workflow; any other location as is."""
    store = Store(location)
    if not store.exists(WORKFLOWS):
        return location
    stages = (latest_record(store) or {"stages": {}})["stages"]
    return store.sub(f"export/{stages['export']}").uri if "export" in stages else location


def _task(folder: Folder) -> Task | None:
    if folder.kind != EXPORT or not folder.store.exists(TASK_FILE):
        return None
    described = json.loads(folder.store.read(TASK_FILE))
    task: Task = TypeAdapter(AnyTask).validate_python(described["task"])
    return task
