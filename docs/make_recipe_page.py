"""Writes ``docs/recipe.md`` out of the parameter models: ``make docs``."""

import sys
from collections.abc import Collection, Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from orchestration import Recipe
from orchestration.params import EXTERNAL_FILE, OPERATIONAL, OR_URI
from pipelines.finetune.formats.registry import FORMATS
from pipelines.finetune.registry import TASKS
from pipelines.ingest.sources.registry import SOURCES
from pipelines.studies.study import Study
from pipelines.workflows.evaluation_recipe import EvaluationRecipe
from pipelines.workflows.finetune_recipe import FinetuneRecipe
from pipelines.workflows.pretrain_recipe import PretrainRecipe

INTRODUCTION = """# Every section of a recipe

Written by `make docs` out of the parameter models. *Operational* fields say where or how fast; they
do not change a result and are not in a fingerprint. A *file* enters the fingerprint by its content,
a file given by *URI* by its size and version.
"""

SOURCE_SECTIONS = ("sources", "evaluation_sets")
SHARED = tuple(Recipe.model_fields)
"Sections of every recipe."


def page() -> str:
    """Return the page."""
    lines = [INTRODUCTION]
    inner: dict[str, None] = {}
    lines += recipe_sections(PretrainRecipe, "The recipe of a pretraining", SOURCE_SECTIONS)
    for model in SOURCES:
        formats = type_name(model.model_fields["format"].annotation)
        lines += section(f"`sources.<name>`, format {formats}", model)
        inner |= dict.fromkeys(inner_sections("sources.<name>", model))
    of_pretraining = ("miniweb", "sources", "download", "curate", "evaluate")
    lines += recipe_sections(EvaluationRecipe, "The recipe of an evaluation", of_pretraining)
    lines += section("The recipe of a study", Study)
    lines += recipe_sections(FinetuneRecipe, "The recipe of a fine-tuning", ("miniweb", "task"))
    for task in TASKS:
        lines += section(f"`task`, name {type_name(task.model_fields['name'].annotation)}", task)
        inner |= dict.fromkeys(inner_sections("task", task))
    for files in FORMATS:
        formats = type_name(files.model_fields["format"].annotation)
        lines += section(f"`data.<split>`, format {formats}", files)
        inner |= dict.fromkeys(inner_sections("data.<split>", files))
    return "\n".join([*lines, *inner])


def recipe_sections(
    recipe: type[BaseModel], title: str, left_out: Collection[str]
) -> Iterator[str]:
    """Yield the lines of a recipe and its sections, without those that are chosen by a name."""
    yield from section(title, recipe)
    for name, field in recipe.model_fields.items():
        if name in left_out or (name in SHARED and recipe is not PretrainRecipe):
            continue
        for model in models_in(field.annotation):
            yield from section(f"`{name}`", model)
            if name != "data":
                yield from inner_sections(name, model)


def inner_sections(address: str, model: type[BaseModel]) -> Iterator[str]:
    """Yield the text of each section within a section."""
    for name, field in model.model_fields.items():
        for inner in models_in(field.annotation):
            yield "\n".join(section(f"`{address}.{name}`", inner))


def section(title: str, model: type[BaseModel]) -> Iterator[str]:
    """Yield the lines of one model."""
    yield f"## {title}\n"
    yield f"{(model.__doc__ or '').strip()}\n"
    if not model.model_fields:
        return
    yield "| field | type | default | |"
    yield "|---|---|---|---|"
    for name, field in model.model_fields.items():
        yield f"| `{name}` | {type_name(field.annotation)} | {default(field)} | {words(field)} |"
    yield ""


def words(field: FieldInfo) -> str:
    """Return what a field says of itself."""
    marks = [
        word
        for mark, word in (
            (OPERATIONAL, "*operational*"),
            (EXTERNAL_FILE, "*file*"),
            (OR_URI, "*or URI*"),
        )
        if mark in field.metadata
    ]
    return " ".join([*marks, (field.description or "").replace("\n", " ")]).strip()


def default(field: FieldInfo) -> str:
    """Return how a field's default reads in a recipe."""
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        return "see its section"
    value = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000)
    return f"`{text.strip().removesuffix('...').strip()}`"


def type_name(annotation: Any) -> str:
    """Return a type in words."""
    if annotation is type(None):
        return "null"
    if get_origin(annotation) is Annotated:
        return type_name(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(annotation))
    if models_in(annotation):
        return "section"
    if get_args(annotation) and get_origin(annotation) not in (dict, list, tuple):
        return " or ".join(type_name(argument) for argument in get_args(annotation))
    name = getattr(get_origin(annotation) or annotation, "__name__", str(annotation))
    return {"tuple": "list", "dict": "mapping"}.get(name, name)


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the models that an annotation names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in models_in(argument)]


if __name__ == "__main__":
    sys.stdout.write(page())
