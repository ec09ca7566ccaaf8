"""Task report: a page of predictions, some right and some wrong ones of each evaluated split.

In: ``score``, and ``predict/<split>`` and ``prepare/<split>`` of each evaluated split. Out:
``report.html``, one page that holds its images. Examples are chosen by a hash of their ids, so the
page of another training of the same task shows the same questions where it can. Of retrieval it
shows captions with the nearest images and images with the nearest captions; of captioning the
generated captions beside those of the annotators. Metrics that were left out have the reason. Of
segmentation it shows label maps over the images, and the classes with what they are taken for.
"""

from collections.abc import Mapping
from typing import Final

from orchestration import Context, Dataset, Stage, feeding
from orchestration.storage.store import Store
from pipelines.finetune.score import SCORE_FILE, ScoreParams, missing_metrics
from pipelines.finetune.task import Task
from pipelines.report.class_tables import class_tables, object_class_tables
from pipelines.report.nearest import Nearest, nearest
from pipelines.report.page import render
from pipelines.report.predicted import Predicted, predicted
from pipelines.report.scores import measured

HTML_FILE: Final = "report.html"


def stage(
    task: Task,
    *,
    score: Stage,
    predictions: Mapping[str, Stage],
    examples: Mapping[str, Stage],
) -> Stage:
    """Return the stage ``task_report``.

    Args:
        task: the recipe's section ``task``.
        score: ``score``.
        predictions: ``predict/<split>`` by split.
        examples: ``prepare/<split>`` by split.
    """
    inputs = {f"predict_{split}": made for split, made in predictions.items()}
    inputs |= {f"prepare_{split}": examples[split] for split in predictions}
    return Stage(
        "task_report",
        lambda context: run(context, task, list(predictions)),
        ScoreParams(task=task),
        feeding(score=score, **inputs),
    )


def run(context: Context, task: Task, splits: list[str]) -> None:
    """Choose and render in one worker."""
    datasets = {role: context.input(role) for role in context.stage.inputs}
    numbers = context.run_task(write_page, context.folder, task, splits, datasets)
    context.log.artifact(context.folder.fetch(HTML_FILE))
    context.commit(files=[HTML_FILE], numbers=numbers)


def write_page(
    folder: Store, task: Task, splits: list[str], datasets: Mapping[str, Dataset]
) -> dict[str, float]:
    """Write the page; return the number of examples on it."""
    shown: dict[str, Predicted | Nearest] = {}
    for split in splits:
        pair = datasets[f"predict_{split}"], datasets[f"prepare_{split}"]
        shown[split] = nearest(*pair) or predicted(task, *pair)
    page = render(
        "task_report.html",
        task=task,
        rows=measured(datasets["score"].manifest.numbers),
        missing=_missing(datasets["score"]),
        classes=class_tables(datasets["score"], splits),
        object_classes=object_class_tables(datasets["score"], splits),
        shown=shown,
    )
    folder.write_bytes(HTML_FILE, page.encode())
    return {"num_examples": sum(len(split) for split in shown.values())}


def _missing(score: Dataset) -> dict[str, str]:
    """Return why metrics of ``score`` are missing, by name."""
    if all(file.path != SCORE_FILE for file in score.manifest.files):
        return {}
    return missing_metrics(score.fetch(SCORE_FILE).read_bytes())
