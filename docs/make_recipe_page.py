"""Writes ``docs/recipe.md`` out of the parameter models: ``make docs``."""

import sys
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from orchestration.params import EXTERNAL_FILE, OPERATIONAL, OR_URI
from pipelines.ingest.sources.registry import SOURCES
from pipelines.workflows.pretrain_recipe import PretrainRecipe

INTRODUCTION = """# Every section of a recipe

Written by `make docs` out of the parameter models. *Operational* fields say where or how fast; they
do not change a result and are not in a fingerprint. A *file* enters the fingerprint by its content,
a file given by *URI* by its size and version.
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
    for title, model in sections:
        lines += section(title, model)
        if model is not PretrainRecipe:
            lines += inner_sections(title.strip("`"), model)
    inner: dict[str, None] = {}
    for model in SOURCES:
        formats = type_name(model.model_fields["format"].annotation)
        lines += section(f"`sources.<name>`, format {formats}", model)
        inner |= dict.fromkeys(inner_sections("sources.<name>", model))
    return "\n".join([*lines, *inner])


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
