"""Writes ``docs/recipe.md`` out of the parameter models: ``make docs``."""

import sys
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from orchestration.params import EXTERNAL_FILE, OPERATIONAL, OR_URI
from pipelines.ingest.sources.registry import SOURCES
from pipelines.workflows.pretrain_recipe import PretrainRecipe

INTRODUCTION = """# Every section of a recipe

Written by `make docs` out of the parameter models. *Operational* fields say where or how fast; they
do not change a result and are not in a fingerprint. A *file* enters the fingerprint by its content.
"""


def page() -> str:
    """Return the page."""
    lines = [INTRODUCTION]
    sections: list[tuple[str, type[BaseModel]]] = [("The recipe itself", PretrainRecipe)]
    for name, field in PretrainRecipe.model_fields.items():
        sections += [
            (f"`{name}`", model)
            for model in models_in(field.annotation)
            if name not in ("sources", "evaluation_sets")
        ]
    sections += [
        *((f"`sources.<name>`, {source_title(model)}", model) for model in SOURCES),
    ]
    for title, model in sections:
        lines += section(title, model)
        for name, field in model.model_fields.items():
            if model is not PretrainRecipe:
                for inner in models_in(field.annotation):
                    lines += section(f"{title} `.{name}`", inner)
    return "\n".join(lines)


def source_title(model: type[BaseModel]) -> str:
    """Return what a source is, from its model's docstring."""
    first = (model.__doc__ or "").strip().removesuffix(".")
    return first[0].lower() + first[1:] if first.startswith(("A ", "An ")) else first


def section(title: str, model: type[BaseModel]) -> Iterator[str]:
    """Yield the lines of one model."""
    yield f"## {title}\n"
    yield f"{(model.__doc__ or '').strip()}\n"
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
    return "see its section" if isinstance(value, BaseModel) else f"`{value}`"


def type_name(annotation: Any) -> str:
    """Return a type in words."""
    if annotation is type(None):
        return "null"
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(annotation))
    if models_in(annotation):
        return "section"
    if get_args(annotation) and get_origin(annotation) not in (dict, list, tuple):
        return " or ".join(type_name(argument) for argument in get_args(annotation))
    return getattr(get_origin(annotation) or annotation, "__name__", str(annotation))


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the models that an annotation names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in models_in(argument)]


if __name__ == "__main__":
    sys.stdout.write(page())
