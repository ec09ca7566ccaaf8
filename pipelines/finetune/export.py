"""Export: the best weights of a fine-tuning → a folder that this project and others read.

Out: ``model.safetensors`` (encoder as ``network.…``, heads by released name), ``network.json``,
``task.json`` (task, input, metrics), ``labels.txt`` (as the published ``answer2label.txt``; absent
if the task has no labels), the text tokenizer as in the export of a pretraining, ``official.pth``
(if one of the authors' classes computes the same) and ``README.md``, the model card. Another
fine-tuning may start from the folder.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from model import BEiT3Config
from model.finetuning.released import class_of, encoder_of, state_to_released
from model.network.deduced_config import has_final_norm
from model.network.weight_files import read_weights
from orchestration import Context, Dataset, Stage, feeding
from orchestration.fingerprint import semantic
from orchestration.params import StageParams
from orchestration.reporting.usage import Expected, Workers
from orchestration.storage.store import Store
from pipelines.finetune import start as start_stage
from pipelines.finetune.model_card import model_card
from pipelines.finetune.start_params import StartParams
from pipelines.finetune.start_source import BEST_FILE, NAMES_FILE
from pipelines.finetune.task import Task
from pipelines.pretrain.checkpoints import NETWORK_FILE
from pipelines.pretrain.export import CARD_FILE, save_state, write_text_tokenizer
from pipelines.pretrain.start_source import EXPORT, LABELS_FILE, WEIGHTS_FILE
from pipelines.tokens.text_tokenizer import MODEL_FILE

OFFICIAL_FILE: Final = "official.pth"
TASK_FILE: Final = "task.json"
_ANSWERED: Final = "vqa"
"Task whose labels the authors call answers."


class Params(StageParams):
    """No parameters."""


def stage(params: Params, *, task: Task, start: Stage, finetune: Stage, score: Stage) -> Stage:
    """Return the stage ``export``.

    Args:
        params: the recipe's section.
        task: of the recipe.
        start: ``start``, which gives configuration and text tokenizer.
        finetune: ``finetune``, which gives the best weights and the labels.
        score: ``score``, whose numbers are the metrics.
    """
    return Stage(
        "export",
        lambda context: run(context, task),
        params,
        feeding(start=start, finetune=finetune, score=score),
        workers=partial(workers, start.params),
    )


def workers(start: StageParams, inputs: Mapping[str, Expected]) -> Workers | None:
    """Predict the memory of the one worker: the weights and their copies in other layouts."""
    assert isinstance(start, StartParams)
    return start_stage.workers(start, inputs)


def run(context: Context, task: Task) -> None:
    """Write the files as one task."""
    names = context.run_task(
        export,
        context.folder.sub(EXPORT),
        semantic(task),
        context.input("start"),
        context.input("finetune"),
        {
            name: value
            for name, value in context.input("score").manifest.numbers.items()
            if not name.startswith("published/")
        },
    )
    context.commit(files=[f"{EXPORT}/{name}" for name in names])


def export(
    target: Store,
    task: Mapping[str, Any],
    start: Dataset,
    finetune: Dataset,
    metrics: Mapping[str, float],
) -> list[str]:
    """Write the export folder; return the names of its files.

    Args:
        target: the folder.
        task: name and parameters of the task; a file is named by its content.
        start: output of ``start``.
        finetune: output of ``finetune``.
        metrics: numbers of ``score``.
    """
    labels = json.loads(finetune.fetch(NAMES_FILE).read_text())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config, official = write_network(
            folder, finetune.fetch(BEST_FILE), start_stage.load_config(start)
        )
        if labels:
            (folder / LABELS_FILE).write_text("".join(label_lines(task["name"], labels)))
        described = describe(task, config, metrics)
        (folder / TASK_FILE).write_text(json.dumps(described, indent=1))
        text_file = write_text_tokenizer(folder, start.fetch(MODEL_FILE), config.max_text_length)
        card = model_card(
            task,
            config,
            num_labels=len(labels),
            text_file=text_file,
            official=official,
            metrics=metrics,
        )
        (folder / CARD_FILE).write_text(card)
        names = sorted(path.name for path in folder.iterdir())
        for name in names:
            target.write_file(name, folder / name)
    return names


def write_network(folder: Path, best: Path, config: BEiT3Config) -> tuple[BEiT3Config, str | None]:
    """Write the network in each layout; return its configuration and the authors' class, if any.

    Args:
        folder: the export.
        best: state of the task's network.
        config: of ``start``; whether there is a final norm is read from the state.
    """
    state = read_weights(best)
    config = replace(config, final_norm=has_final_norm(encoder_of(state)))
    save_state(state, folder / WEIGHTS_FILE)
    (folder / NETWORK_FILE).write_text(json.dumps(config.to_dict(), indent=1))
    official = class_of(state, config)
    if official is not None:
        tensors, _ = state_to_released(state, config)
        copies = {name: tensor.clone() for name, tensor in tensors.items()}
        torch.save({"model": copies}, folder / OFFICIAL_FILE)
    return config, official


def label_lines(task: str, labels: Sequence[str]) -> Iterator[str]:
    """Yield the lines of ``labels.txt`` in the form of the published ``answer2label.txt``."""
    key = "answer" if task == _ANSWERED else "name"
    for number, label in enumerate(labels):
        yield json.dumps({key: label, "label": number}) + "\n"


def describe(
    task: Mapping[str, Any], config: BEiT3Config, metrics: Mapping[str, float]
) -> dict[str, Any]:
    """Return what ``task.json`` holds."""
    return {
        "task": dict(task),
        "image_size": config.image_size,
        "max_text_length": config.max_text_length,
        "pixel_mean": config.pixel_mean,
        "pixel_std": config.pixel_std,
        "metrics": dict(metrics),
    }
