"""Whether a fine-tuning can be completed with its data, and what its settings imply.

``impossible`` judges by committed counts alone, so what it says is certain; the runner asks it
again after each stage. ``implications`` uses estimates as well and refuses nothing.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from orchestration.manifest import Manifest
from orchestration.reporting.estimates import Estimate
from pipelines.workflows.finetune_recipe import FinetuneRecipe

_TRAIN: Final = "prepare/train"


def impossible(recipe: FinetuneRecipe, complete: Mapping[str, Manifest]) -> list[str]:
    """Return why the workflow cannot be completed; empty if nothing speaks against it.

    Args:
        recipe: the recipe.
        complete: manifests of the complete stages by name.
    """
    if not recipe.is_trained or "finetune" in complete or _TRAIN not in complete:
        return []
    num_rows = complete[_TRAIN].num_rows("data")
    num_samples = None if recipe.task.by_text else num_rows
    if "labels" in complete:
        numbers = complete["labels"].numbers
        num_rows -= int(numbers["num_unused_examples"])
        num_samples = int(numbers["num_samples"])
    return list(_too_few(recipe, num_rows, num_samples, "has"))


def implications(
    recipe: FinetuneRecipe, estimates: Mapping[str, Estimate], complete: Mapping[str, Manifest]
) -> Iterator[str]:
    """Yield what the splits, and epochs and batch for the expected examples, imply."""
    splits = recipe.data.splits
    for split in sorted(splits.keys() - {"train"}):
        if recipe.is_trained and splits[split] == splits["train"]:
            yield (
                f"data.{split} is the same as data.train, so the metrics of {split} show what was "
                "memorized"
            )
    num_rows = estimates[_TRAIN].rows if _TRAIN in estimates else None
    if not recipe.is_trained or num_rows is None:
        return
    params, is_known = recipe.finetune, "labels" in complete
    num_samples = num_rows
    if is_known:
        num_samples = int(complete["labels"].numbers["num_samples"])
    elif _TRAIN not in complete:
        few = None if recipe.task.by_text else num_samples
        yield from _too_few(recipe, num_rows, few, "has about")
    if recipe.task.by_text and not is_known:
        yield f"data.train: about {num_rows} examples, each of whose texts is a sample"
        return
    steps = params.in_steps(num_samples).steps
    yield (
        f"finetune: {steps} step{'s' * (steps != 1)} of batch_size = {params.batch_size} over "
        f"{'' if is_known else 'about '}{num_samples} samples: "
        f"{steps * params.batch_size / max(num_samples, 1):.3g} epochs"
    )


def _too_few(
    recipe: FinetuneRecipe, num_rows: int, num_samples: int | None, has: str
) -> Iterator[str]:
    """A batch takes no sample twice, and each substream needs an example of its own."""
    params = recipe.finetune
    if num_rows < params.substreams:
        yield (
            f"finetune.substreams = {params.substreams}, but the split train {has} {num_rows} "
            "examples that can be trained on; set finetune.substreams=1 and "
            f"finetune.batch_size={max(num_rows, 1)} or less (and num_workers=1), or give more data"
        )
    elif num_samples is not None and num_samples < params.batch_size:
        most = num_samples // params.substreams * params.substreams
        yield (
            f"finetune.batch_size = {params.batch_size}, but the split train {has} {num_samples} "
            f"samples; set finetune.batch_size={most} or less, or give more data"
        )
