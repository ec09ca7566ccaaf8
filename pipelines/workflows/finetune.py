"""The workflow from given weights and a task's files to a score, as a flat list of stages."""

from functools import partial

from orchestration import Stage, Workflow
from pipelines.finetune import export, finetune, labels, predict, prepare, score, start
from pipelines.pretrain.provenance import Provenance
from pipelines.report import task_report
from pipelines.workflows.finetune_feasibility import impossible
from pipelines.workflows.finetune_recipe import FinetuneRecipe


def build_finetuning(recipe: FinetuneRecipe) -> Workflow:
    """Return the fine-tuning workflow of a recipe."""
    task = recipe.task

    # The weights at the task's input size, and the examples.
    started = start.stage(recipe.start_params())
    examples: dict[str, Stage] = {
        split: prepare.stage(
            files,
            split=split,
            num_images=task.num_images,
            num_texts=task.num_texts,
            needs_labels=task.needs_labels and split != "test",
        )
        for split, files in recipe.data.splits.items()
    }
    dev = examples.get("dev")
    train = examples.get("train") or dev or examples["test"]
    untrained = None if recipe.is_trained else started
    label_names = labels.stage(task, train=train, dev=dev, untrained=untrained)

    # Train, then predict and score what was not trained on.
    finetuned = finetune.stage(
        recipe.finetune,
        task,
        seed=recipe.seed,
        started=started,
        labels=label_names,
        train=train,
        dev=dev,
    )
    evaluated = {split: each for split, each in examples.items() if split != "train"}
    predictions: dict[str, Stage] = {
        split: predict.stage(
            recipe.predict,
            task,
            split=split,
            finetuned=finetuned,
            started=started,
            labels=label_names,
            examples=each,
        )
        for split, each in evaluated.items()
    }
    scored = score.stage(
        task, predictions=predictions, examples=evaluated, published=recipe.published
    )
    shown = task_report.stage(task, score=scored, predictions=predictions, examples=evaluated)
    exported = export.stage(
        export.Params(),
        task=task,
        start=started,
        finetune=finetuned,
        score=scored,
        examples=examples,
        origin=Provenance(
            recipe.name,
            {
                f"{split} ({files.format})": files.license
                for split, files in recipe.data.splits.items()
            },
        ),
    )
    stages = (
        *(started, *examples.values(), label_names, finetuned),
        *(*predictions.values(), scored, shown, exported),
    )
    return Workflow(recipe, stages, partial(impossible, recipe))
