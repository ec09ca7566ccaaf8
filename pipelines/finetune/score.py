"""Score: the metrics of the evaluated splits, beside chance and the published numbers.

In: ``predict/<split>`` and ``prepare/<split>`` of each evaluated split; ``prepare/train`` for tasks
whose baseline is the nearest training image. Out: ``score.json``, the numbers and, if metrics were
left out, ``missing``, the reason by name; ``submission_<split>.json``, or ``.zip`` of label maps,
where the task has an evaluation server; tables of the task, such as ``classes_<split>.csv``. A
split without labels has no metrics. Numbers are ``<split>/<metric>``, ``<split>/chance/<metric>``,
``<split>/nearest_image/<metric>`` and ``published/<split>/<metric>``.
"""

import json
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import Field

from orchestration import Context, Dataset, Stage, feeding
from orchestration.errors import StageError
from orchestration.params import OPERATIONAL, StageParams
from orchestration.storage.store import Store
from pipelines.finetune.labels import text_columns
from pipelines.finetune.nearest_texts import nearest_predictions
from pipelines.finetune.registry import AnyTask
from pipelines.finetune.task import Task

SCORE_FILE: Final = "score.json"
PUBLISHED: Final = "published"
CHANCE: Final = "chance"
NEAREST: Final = "nearest_image"
NUM_EXAMPLES: Final = "num_examples"
MISSING: Final = "missing"
"Key of ``score.json``: why metrics were left out, by name."
_TRAIN: Final = "prepare_train"


class ScoreParams(StageParams):
    """What is scored, and with what it is compared."""

    task: AnyTask
    "The recipe's section."
    published: Annotated[dict[str, float], OPERATIONAL] = Field(default_factory=dict)
    "Published values by ``<split>/<metric>``."


def stage(
    task: Task,
    *,
    predictions: Mapping[str, Stage],
    examples: Mapping[str, Stage],
    train: Stage | None = None,
    published: Mapping[str, float] = MappingProxyType({}),
) -> Stage:
    """Return the stage ``score``.

    Args:
        task: the recipe's section ``task``.
        predictions: ``predict/<split>`` by split.
        examples: ``prepare/<split>`` by split.
        train: ``prepare/train``, if the recipe has this split.
        published: published values by ``<split>/<metric>``.
    """
    params = ScoreParams(task=task, published=dict(published))
    inputs = {f"predict_{split}": made for split, made in predictions.items()}
    inputs |= {f"prepare_{split}": examples[split] for split in predictions}
    if train is not None and task.has_nearest:
        inputs[_TRAIN] = train
    return Stage(
        "score",
        lambda context: run(context, params, list(predictions)),
        params,
        feeding(**inputs),
        version=3,
    )


def run(context: Context, params: ScoreParams, splits: list[str]) -> None:
    """Compute the metrics in one task, commit them beside the published values."""
    datasets = {role: context.input(role) for role in context.stage.inputs}
    numbers, files = context.run_task(write_scores, context.folder, params.task, splits, datasets)
    numbers |= {f"{PUBLISHED}/{name}": value for name, value in params.published.items()}
    for name, reason in missing_metrics(context.folder.read(SCORE_FILE)).items():
        context.progress.remark(f"{name} is left out: {reason}")
    context.log.artifact(context.folder.fetch(SCORE_FILE))
    context.commit(files=files, numbers=numbers)


def write_scores(
    folder: Store, task: Task, splits: list[str], datasets: Mapping[str, Dataset]
) -> tuple[dict[str, float], list[str]]:
    """Write the files; return the metrics by ``<split>/<name>`` and the names of the files.

    Raises:
        StageError: a metric is no number, or a predicted class cannot be submitted.
    """
    numbers: dict[str, float] = {}
    missing: dict[str, str] = {}
    files = [SCORE_FILE]
    for split in splits:
        predictions = datasets[f"predict_{split}"].read()
        examples = text_columns(datasets[f"prepare_{split}"], task)
        numbers[f"{split}/{NUM_EXAMPLES}"] = examples.num_rows
        if examples.num_rows and task.can_score(examples):
            found, left_out = task.full_score(predictions, examples)
            for name, table in task.score_files(predictions, examples).items():
                files.append(split_file(name, split))
                folder.write_bytes(files[-1], table)
            missing |= {f"{split}/{name}": reason for name, reason in left_out.items()}
            if _TRAIN in datasets:
                nearest = nearest_predictions(datasets[_TRAIN], datasets[f"prepare_{split}"])
                found |= {
                    f"{NEAREST}/{name}": value
                    for name, value in task.score(nearest, examples).items()
                    if not name.startswith(f"{CHANCE}/")
                }
            numbers |= {f"{split}/{name}": value for name, value in found.items()}
            if wrong := [name for name, value in found.items() if not math.isfinite(value)]:
                raise StageError(
                    f"score: {', '.join(wrong)} of the split {split} is no number, because "
                    "predictions are none; set predict.precision=fp32, or lower finetune.lr"
                )
        try:
            submission = task.submission(predictions)
        except ValueError as error:
            raise StageError(f"score: the submission of the split {split}: {error}") from None
        if submission is not None:
            files.append(split_file(task.submission_name, split))
            folder.write_bytes(files[-1], submission)
    content = {**numbers, MISSING: missing} if missing else numbers
    folder.write_bytes(SCORE_FILE, json.dumps(content, indent=1, sort_keys=True).encode())
    return numbers, files


def split_file(name: str, split: str) -> str:
    """Return the name of a split's file: ``classes_dev.csv`` of ``classes.csv``."""
    stem, _, ending = name.partition(".")
    return f"{stem}_{split}.{ending}"


def missing_metrics(score: bytes) -> dict[str, str]:
    """Return why metrics are missing from the content of ``score.json``, by name."""
    found: dict[str, str] = json.loads(score).get(MISSING, {})
    return found
