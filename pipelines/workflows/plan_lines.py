"""What a plan says of a recipe besides its stages: sources, settings, what may leak."""

from collections.abc import Iterator, Mapping

from dataprep.proxies import Proxies
from orchestration.errors import RecipeError
from orchestration.manifest import Manifest
from orchestration.reporting.estimates import Estimate
from pipelines.finetune import start
from pipelines.ingest.preview import preview
from pipelines.workflows import finetune_feasibility
from pipelines.workflows.evaluation_recipe import EvaluationRecipe
from pipelines.workflows.feasibility import implications
from pipelines.workflows.finetune_recipe import FinetuneRecipe
from pipelines.workflows.kinds import AnyRecipe
from pipelines.workflows.leaks import possible_leaks
from pipelines.workflows.pretrain_recipe import PretrainRecipe


def plan_lines(
    recipe: AnyRecipe, estimates: Mapping[str, Estimate], complete: Mapping[str, Manifest]
) -> Iterator[str]:
    """Yield the lines.

    Args:
        recipe: the recipe.
        estimates: of each stage by name.
        complete: manifests of the complete stages by name.

    Raises:
        RecipeError: a proxy that the environment names is not valid.
    """
    if isinstance(recipe, FinetuneRecipe):
        yield from _finetune_lines(recipe)
        lines = finetune_feasibility.implications(recipe, estimates, complete)
        yield from (f"settings: {line}" for line in lines)
        return
    yield from _sources(recipe)
    yield from proxy_lines(recipe)
    if isinstance(recipe, EvaluationRecipe):
        return
    yield from (f"settings: {line}" for line in implications(recipe, estimates, complete))
    yield from (f"may leak: {line}" for line in possible_leaks(recipe))


def _sources(recipe: PretrainRecipe | EvaluationRecipe) -> Iterator[str]:
    for section in ("sources", "evaluation_sets"):
        for name, source in getattr(recipe, section, {}).items():
            stages = " → ".join(stage.name for stage in source.stages(name, recipe.download))
            yield f"{section}.{name}: {source.format} ({source.kind}) → {stages}"
            yield from (f"  {line}" for line in preview(source))
    if isinstance(recipe, EvaluationRecipe):
        return
    for section in ("text_tokenizer", "image_tokenizer"):
        yield from preview(getattr(recipe, section), f"{section}.")


def proxy_lines(recipe: PretrainRecipe | EvaluationRecipe) -> Iterator[str]:
    """Yield through which proxies images would be downloaded, if there are any."""
    download = recipe.download
    if download is None or download.engine != "native":
        return
    try:
        words = Proxies.of_environment().words()
    except ValueError as error:
        raise RecipeError(f"download: {error}") from None
    if words:
        yield f"downloads: {words}"


def _finetune_lines(recipe: FinetuneRecipe) -> Iterator[str]:
    for split, files in recipe.data.splits.items():
        yield f"data.{split}: {files.format} → prepare/{split}"
        yield from (f"  {line}" for line in preview(files))
    yield from start.plan_lines(recipe.start_params())
