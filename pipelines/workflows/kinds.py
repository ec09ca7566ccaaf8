"""The workflows that a recipe may describe: a pretraining, or a fine-tuning for a ``task``."""

from collections.abc import Mapping
from typing import Any

from orchestration import Workflow
from pipelines.workflows.finetune import build_finetuning
from pipelines.workflows.finetune_recipe import FinetuneRecipe
from pipelines.workflows.pretrain import build_workflow as build_pretraining
from pipelines.workflows.pretrain_recipe import PretrainRecipe

AnyRecipe = PretrainRecipe | FinetuneRecipe


def recipe_type(values: Mapping[str, Any]) -> type[AnyRecipe]:
    """Return the model of a recipe file's values: one with a task is a fine-tuning."""
    return FinetuneRecipe if "task" in values else PretrainRecipe


def build_workflow(recipe: AnyRecipe) -> Workflow:
    """Return the workflow of a recipe."""
    if isinstance(recipe, FinetuneRecipe):
        return build_finetuning(recipe)
    return build_pretraining(recipe)
