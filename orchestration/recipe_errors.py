"""Errors of a recipe's values in words: which key is wrong, and what to write instead."""

import difflib
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel

_SECTION_TYPES = ("model_type", "model_attributes_type", "dict_type", "dict_attributes_type")
_SPELLINGS = {
    "int_parsing": "; write digits, as in 1000000, 1_000_000 or 1e6",
    "float_parsing": "; write digits, as in 0.5, 1000 or 1e-6",
    "string_type": "; put the text in quotes",
    "bool_parsing": "; write true or false",
    "bool_type": "; write true or false",
    "string_too_short": "; leave the key out, or write null where nothing is meant",
    "invalid_key": "; put the key in quotes",
}
"What to write instead, by the type of pydantic's error."
_MAX_SHOWN = 80
"Largest number of characters of a wrong value in a message."


def keys_in(values: Any, item: Mapping[str, Any]) -> list[str]:
    """Return the keys that lead to one of pydantic's errors.

    The tags of unions stand in its location and not in the values, as the key that is missing does.
    """
    keys: list[str] = []
    for key in item["loc"]:
        is_index = isinstance(values, list) and isinstance(key, int) and key < len(values)
        if is_index or (isinstance(values, dict) and key in values):
            keys.append(str(key))
            values = values[key]
    return [*keys, str(item["loc"][-1])] if item["type"] == "missing" else keys


def message_of(schema: type[BaseModel], item: Mapping[str, Any]) -> str:
    """Return one of pydantic's errors in words; for an unknown key, with the nearest known one.

    Args:
        schema: model of the values.
        item: an entry of ``ValidationError.errors()``.
    """
    if item["type"] != "extra_forbidden":
        return f"{_words(item)}{_given(item)}"
    known = _known_keys(schema, item["loc"][:-1])
    near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return f"unknown key; {hint}"


def _words(item: Mapping[str, Any]) -> str:
    """Return what is wrong with a value, and how to spell what was probably meant."""
    message: str = item["msg"].removeprefix("Value error, ")
    if item["type"] in _SECTION_TYPES and item["input"] is None:
        return (
            "the section is empty; give it a key, or remove it, which keeps that of a recipe that "
            "this one extends"
        )
    if item["type"] == "union_tag_not_found":
        return f"the key {item['ctx']['discriminator']} is missing"
    if item["type"] == "union_tag_invalid":
        key, tag = item["ctx"]["discriminator"].strip("'"), item["ctx"]["tag"]
        known = item["ctx"]["expected_tags"].replace("'", "").split(", ")
        near = difflib.get_close_matches(tag, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"unknown {key} {tag!r}; {hint}known: {', '.join(known)}"
    return message + _SPELLINGS.get(item["type"], "")


def _given(item: Mapping[str, Any]) -> str:
    """Return the wrong value in words; a section is not shown, its message names the keys."""
    if item["type"] == "missing" or isinstance(item["input"], dict | BaseModel):
        return ""
    text = getattr(item["input"], "text", repr(item["input"]))
    if len(text) > _MAX_SHOWN:
        text = f"{text[:_MAX_SHOWN]}…"
    return f" (given: {text})"


def _known_keys(schema: Any, location: tuple[int | str, ...]) -> list[str]:
    """Return the field names at ``location``, following unions and containers of models."""
    models = _models_of(schema)
    for key in location:
        inner: list[type[BaseModel]] = []
        for model in models:
            if key in model.model_fields:
                inner += _models_of(model.model_fields[str(key)].annotation)
        # Other entries are list indices, mapping keys and union tags, which lead to no other model.
        models = inner or models
    return sorted({name for model in models for name in model.model_fields})


def _models_of(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_of(argument)]
