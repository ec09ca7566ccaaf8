"""Export: the best weights of a fine-tuning → a folder that this project and others read."""

from orchestration import Context, Stage, feeding
from orchestration.params import StageParams
from pipelines.finetune.task import Task


class Params(StageParams):
    """No parameters."""


def stage(params: Params, *, task: Task, start: Stage, finetune: Stage, score: Stage) -> Stage:
    """Return the stage ``export``.

    Args:
        params: the recipe's section.
        task: of the recipe.
        start: ``start``, which gives configuration and text tokenizer.
        finetune: ``finetune``: ``network.safetensors`` and ``labels.json``.
        score: ``score``, whose numbers are the metrics.
    """
    return Stage(
        "export",
        lambda context: run(context, task),
        params,
        feeding(start=start, finetune=finetune, score=score),
    )


def run(context: Context, task: Task) -> None:
    """Write the files as one task."""
    raise NotImplementedError
