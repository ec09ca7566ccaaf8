"""Fine-tunings of a tiny network on drawn examples, as jobs whose inputs are committed."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from model import BEiT3
from orchestration import Dataset
from orchestration.storage.store import Store
from pipelines.finetune.finetune_task import FinetuneJob
from pipelines.finetune.labels import LABELS_FILE, SAMPLES_FILE, write_labels
from pipelines.finetune.params import FinetuneParams
from pipelines.finetune.start import MODEL_FILE, WEIGHTS_FILE
from pipelines.pretrain.checkpoints import NETWORK_FILE
from tests.committing import commit_tables
from tests.model.networks import RELEASED
from tests.pipelines.finetune.examples import examples, task_of
from tokenizer.text import train

PARAMS: dict[str, Any] = {
    "steps": 4, "warmup_steps": 1, "batch_size": 16, "micro_batch": 16, "substreams": 4,
    "lr": 2e-3, "layer_decay": 0.8, "drop_path": 0.2, "precision": "fp32", "evaluations": 2,
    "log_every": 1, "checkpoint_every": 2, "augment": {"flip": False},
}  # fmt: skip


def vocabulary() -> bytes:
    """A SentencePiece model whose ids the tiny networks have."""
    lines = ["a red circle on the left of one blue square"] * 40
    return train(lines, vocab_size=25, character_coverage=1.0)


def started(folder: Path) -> Dataset:
    """An output of ``start``."""
    torch.manual_seed(1)
    config = replace(RELEASED, max_text_length=16)
    weights = {f"network.{n}": t for n, t in BEiT3(config).state_dict().items() if "head" not in n}
    files = {
        WEIGHTS_FILE: save(weights),
        NETWORK_FILE: json.dumps(config.to_dict()).encode(),
        MODEL_FILE: vocabulary(),
    }
    return commit_tables(Store(folder), [], row_group_rows=1, files=files)


def job(
    folder: Path,
    kind: str,
    *,
    num_train: int = 37,
    num_dev: int = 11,
    task: Mapping[str, Any] | None = None,
    **changes: Any,
) -> FinetuneJob:
    """A fine-tuning of a task whose inputs lie in a folder; they are written once."""
    made = task_of(kind, **(task or {}))
    inputs = {name: Store(folder / name) for name in ("start", "train", "dev", "labels")}
    if not inputs["labels"].exists(SAMPLES_FILE):
        started(folder / "start")
        for split, number in (("train", num_train), ("dev", num_dev)):
            commit_tables(inputs[split], [examples(kind, number)], row_group_rows=5)
        splits = {name: Dataset.open(inputs[name]) for name in ("train", "dev")}
        write_labels(inputs["labels"], made, splits)
        files = {name: inputs["labels"].read(name) for name in (LABELS_FILE, SAMPLES_FILE)}
        commit_tables(inputs["labels"], [], row_group_rows=1, files=files)
    opened = {name: Dataset.open(store) for name, store in inputs.items()}
    params = FinetuneParams.model_validate(PARAMS | changes)
    return FinetuneJob(
        made, params, 3, opened["start"], opened["labels"], opened["train"], opened["dev"]
    )
