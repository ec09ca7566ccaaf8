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
from typing import Final

import torch
from torch import Tensor

from model import BEiT3Config
from model.finetuning.released import class_of, encoder_of, state_to_released
from model.network.deduced_config import has_final_norm
from model.network.pretrained import write_folder
from model.network.weight_files import read_weights
from orchestration import Context, Dataset, Stage, feeding
from orchestration.manifest import REJECTS
from orchestration.params import StageParams
from orchestration.reporting.usage import Expected, Workers
from orchestration.storage.store import Store
from pipelines.finetune import start as start_stage
from pipelines.finetune.model_card import model_card
from pipelines.finetune.score import PUBLISHED
from pipelines.finetune.start_params import StartParams
from pipelines.finetune.start_source import BEST_FILE, NAMES_FILE
from pipelines.finetune.task import Task
from pipelines.finetune.task_file import write_task
from pipelines.pretrain.export import CARD_FILE, write_text_tokenizer
from pipelines.pretrain.provenance import Provenance
from pipelines.pretrain.start_source import EXPORT, LABELS_FILE
from pipelines.tokens.text_tokenizer import MODEL_FILE

PREPARED: Final = "prepare_"
"Before the name of a split, the role of its examples."
OFFICIAL_FILE: Final = "official.pth"
_ANSWERED: Final = "vqa"
"Task whose labels the authors call answers."


class Params(StageParams):
    """No parameters."""


def stage(
    params: Params,
    *,
    task: Task,
    start: Stage,
    finetune: Stage,
    score: Stage,
    examples: Mapping[str, Stage],
    origin: Provenance,
) -> Stage:
    """Return the stage ``export``.

    Args:
        params: the recipe's section.
        task: of the recipe.
        start: ``start``, which gives configuration and text tokenizer.
        finetune: ``finetune``, which gives the best weights and the labels.
        score: ``score``, whose numbers are the metrics.
        examples: ``prepare/<split>`` by split, whose rows the model card counts.
        origin: recipe and licenses, for the model card.
    """
    prepared = {f"{PREPARED}{split}": each for split, each in examples.items()}
    return Stage(
        "export",
        lambda context: run(context, task, origin),
        params,
        feeding(start=start, finetune=finetune, score=score, **prepared),
        version=2,
        workers=partial(workers, start.params),
    )


def workers(start: StageParams, inputs: Mapping[str, Expected]) -> Workers | None:
    """Predict the memory of the one worker: the weights and their copies in other layouts."""
    assert isinstance(start, StartParams)
    return start_stage.workers(start, inputs)


def run(context: Context, task: Task, origin: Provenance) -> None:
    """Write the files as one task."""
    roles = [role for role in context.stage.inputs if role.startswith(PREPARED)]
    rows = {role.removeprefix(PREPARED): _counts(context.input(role)) for role in roles}
    names = context.run_task(
        export,
        context.folder.sub(EXPORT),
        context.local_files(task),
        context.input("start"),
        context.input("finetune"),
        context.input("score").manifest.numbers,
        replace(origin, rows=rows),
    )
    context.commit(files=[f"{EXPORT}/{name}" for name in names])


def _counts(dataset: Dataset) -> dict[str, int]:
    return {
        "examples": dataset.num_rows,
        "left out": dataset.table(REJECTS).num_rows,
    }


def export(
    target: Store,
    task: Task,
    start: Dataset,
    finetune: Dataset,
    numbers: Mapping[str, float],
    made: Provenance,
) -> list[str]:
    """Write the export folder; return the names of its files.

    Args:
        target: the folder.
        task: of the recipe.
        start: output of ``start``.
        finetune: output of ``finetune``.
        numbers: of ``score``, the published ones among them.
        made: what the network was made from.
    """
    prefix = f"{PUBLISHED}/"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_export(
            folder,
            task,
            read_weights(finetune.fetch(BEST_FILE)),
            start_stage.load_config(start),
            labels=json.loads(finetune.fetch(NAMES_FILE).read_text()),
            vocabulary=start.fetch(MODEL_FILE),
            metrics={n: value for n, value in numbers.items() if not n.startswith(prefix)},
            published={
                n.removeprefix(prefix): value
                for n, value in numbers.items()
                if n.startswith(prefix)
            },
            made=made,
        )
        names = sorted(path.name for path in folder.iterdir())
        for name in names:
            target.write_file(name, folder / name)
    return names


def write_export(
    folder: Path,
    task: Task,
    state: Mapping[str, Tensor],
    config: BEiT3Config,
    *,
    labels: Sequence[str],
    vocabulary: Path,
    metrics: Mapping[str, float],
    published: Mapping[str, float],
    made: Provenance,
) -> None:
    """Write the files of an export.

    Args:
        folder: the export.
        task: what the network was fine-tuned for; files that it names are copied.
        state: of the task's network.
        config: of the encoder; whether there is a final norm is read from the state.
        labels: in the order of the scores.
        vocabulary: SentencePiece model.
        metrics: numbers of ``score``.
        published: values of the same metrics, for the model card.
        made: what the network was made from.
    """
    config, official = write_network(folder, state, config)
    if labels:
        (folder / LABELS_FILE).write_text("".join(label_lines(task.name, labels)))
    parameters = write_task(folder, task, config, metrics)
    text_file = write_text_tokenizer(folder, vocabulary, config.max_text_length)
    card = model_card(
        parameters,
        config,
        num_labels=len(labels),
        text_file=text_file,
        official=official,
        metrics=metrics,
        published=published,
        made=made,
    )
    (folder / CARD_FILE).write_text(card)


def write_network(
    folder: Path, state: Mapping[str, Tensor], config: BEiT3Config
) -> tuple[BEiT3Config, str | None]:
    """Write the network in each layout; return its configuration and the authors' class, if any.

    Args:
        folder: the export.
        state: of the task's network.
        config: of ``start``; whether there is a final norm is read from the state.
    """
    config = replace(config, final_norm=has_final_norm(encoder_of(state)))
    write_folder(folder, config, state)
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
