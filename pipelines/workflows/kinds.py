"""The workflows that a recipe may describe: a pretraining, an evaluation, or a fine-tuning."""

from collections.abc import Mapping
from typing import Any

from orchestration import Workflow
from pipelines.workflows.evaluation import build_evaluation
from pipelines.workflows.evaluation_recipe import EvaluationRecipe
from pipelines.workflows.finetune import build_finetuning
from pipelines.workflows.finetune_recipe import FinetuneRecipe
from pipelines.workflows.pretrain import build_workflow as build_pretraining
from pipelines.workflows.pretrain_recipe import PretrainRecipe

AnyRecipe = PretrainRecipe | EvaluationRecipe | FinetuneRecipe


def recipe_type(values: Mapping[str, Any]) -> type[AnyRecipe]:
    """Return the model of a recipe file's values.

    One with a ``task`` is a fine-tuning, one with a ``model`` an evaluation.
    """
    if "task" in values:
        return FinetuneRecipe
    return EvaluationRecipe if "model" in values else PretrainRecipe


def build_workflow(recipe: AnyRecipe) -> Workflow:
    """Return the workflow of a recipe."""
    if isinstance(recipe, FinetuneRecipe):
        return build_finetuning(recipe)
    if isinstance(recipe, EvaluationRecipe):
        return build_evaluation(recipe)
    return build_pretraining(recipe)
