"""Shrink a recipe to a trial run that takes CPU seconds: drawn sources and tiny sizes.

What a recipe says about the method stays (attention, masking, loss weights, curation rules, number
of views); what it says about data, size and hardware comes from a template recipe on the
miniature web, which has a source of every drawn format.
"""

import copy
from collections.abc import Mapping
from typing import Any, Final

from orchestration.recipe_extends import merged

Values = dict[str, Any]

_STAND_INS: Final = {
    "flickr30k": "coco",
    "tsv": "csv",
    "jsonl_pairs": "csv",
    "parquet_pairs": "csv",
    "image_folder": "imagenet21k",
    "parquet": "jsonl",
    "cc_news": "openwebtext",
}
"Formats that the miniature web does not draw, each with a drawn format of the same kind."
_DEFAULT_SPLITS: Final = {"flickr30k": ["val", "test"]}
"Of formats whose default splits differ from those of their stand-in."
_DRAWN_EVALUATION: Final = {"format": "flickr30k"}
"What stands for an evaluation set of a format that is drawn for training only."
_SOURCES: Final = ("sources", "evaluation_sets")
_STREAMS: Final = ("images_per_step", "texts_per_step", "pairs_per_step")
"Sizes of the streams in ``train``; one that a recipe leaves out, by 0, stays left out."
_REPLACED: Final = ("miniweb", "cluster", "given_codes")
"Sections that are taken from the template as a whole, which has no codes of its drawn images."
_DROPPED: Final = {
    "model", "weights", "teacher_weights", "start_from", "start_fresh",
    "use_gpu", "num_workers", "compile", "float8", "profile_steps",
    "gpus_per_actor", "cpus_per_actor", "num_actors", "evaluate_every",
    "size", "image_size", "patch_size", "width", "depth", "num_heads", "ffn_width",
}  # fmt: skip
"Keys about given files, hardware and size: without one in the template, the default is used."


def shrink(values: Mapping[str, Any], template: Mapping[str, Any]) -> Values:
    """Return the values of a recipe, shrunk.

    Args:
        values: content of a recipe file; not changed.
        template: content of the recipe that gives sources by format, and sizes.
    """
    drawn = {source["format"]: source for source in template["sources"].values()}
    kept = {name: value for name, value in values.items() if name not in (*_SOURCES, *_REPLACED)}
    sized = {name: value for name, value in template.items() if name not in ("name", *_SOURCES)}
    shrunk = merged(without_sizes(kept), copy.deepcopy(sized))
    for name in _STREAMS:
        if isinstance(train := values.get("train"), Mapping) and train.get(name) == 0:
            shrunk["train"][name] = 0
    for section in _SOURCES:
        if isinstance(sources := values.get(section), Mapping):
            shrunk[section] = {name: _drawn(source, drawn) for name, source in sources.items()}
    for name, source in shrunk.get("evaluation_sets", {}).items():
        if isinstance(source, Mapping) and source.get("format") in drawn.keys() - {"coco"}:
            shrunk["evaluation_sets"][name] = _drawn(_DRAWN_EVALUATION, drawn)
    return shrunk


def _drawn(source: Any, drawn: Mapping[str, Values]) -> Any:
    """Return the drawn source of the same format; what is no source is left to validation."""
    if not isinstance(source, Mapping):
        return source
    written = str(source.get("format"))
    found = drawn.get(_STAND_INS.get(written, written))
    if found is None:
        return source
    splits = source.get("splits", _DEFAULT_SPLITS.get(written))
    return copy.deepcopy(found) | ({"splits": splits} if splits else {})


def without_sizes(values: Mapping[str, Any]) -> Values:
    """Return values without the keys about given files, hardware and size, in all sections."""
    return {
        name: without_sizes(value) if isinstance(value, Mapping) else value
        for name, value in values.items()
        if name not in _DROPPED
    }
