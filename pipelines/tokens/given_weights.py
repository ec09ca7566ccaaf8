"""Checks of weights that a recipe names, before anything runs.

A local file is read whole by the program that uses it. Of a remote one only the beginning is
fetched: enough to see that it is weights at all, and, for safetensors, the shapes of its tensors.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

from orchestration.errors import RecipeError
from orchestration.params import is_uri
from orchestration.storage.remote_files import head_of
from pipelines.ingest.preview import form_of
from pipelines.tokens.vqkd_training import VQKDTrainingParams
from tokenizer.beit_v2 import sizes
from tokenizer.vqkd import VQKDConfig
from tokenizer.weight_files import read_saved, unwrapped

_HEAD_BYTES: Final = 1 << 20
_PICKLE: Final = b"\x80"
_LENGTH_BYTES: Final = 8
_FORMS: Final = ("zip", "binary")
"Forms of a torch file: a zip archive, or a bare pickle of old versions."
_MAX_CODES: Final = 1 << 16
_SIZES: Final = (
    *("patch_size", "width", "depth", "num_heads", "decoder_depth", "num_codes", "code_dim"),
)
"Fields of the recipe that a given tokenizer's file says."


@dataclass(frozen=True)
class _Shaped:
    shape: tuple[int, ...]


def remote_problem(uri: str, params: VQKDTrainingParams, *, is_tokenizer: bool) -> str | None:
    """Return why the file at a URI cannot be the weights, or None.

    Args:
        uri: of the file.
        params: the section of the recipe.
        is_tokenizer: whether the weights are an image tokenizer's, whose sizes must fit.

    Raises:
        RecipeError: the file cannot be read.
    """
    head = head_of(uri, _HEAD_BYTES)
    shapes = safetensors_shapes(head)
    if shapes is None:
        form = form_of(head)
        if form not in _FORMS or (form == "binary" and not head.startswith(_PICKLE)):
            return f"{uri}: {form}, expected a torch or safetensors file"
        return None
    if not is_tokenizer:
        return None
    try:
        config = VQKDConfig(**sizes(shapes, stated_heads(params)))  # only shapes are read
    except (ValueError, IndexError) as error:
        return f"{uri}: not a VQ-KD tokenizer: {error}"
    reason = misfit(config, params)
    return f"{uri}: {reason}" if reason else None


def safetensors_shapes(head: bytes) -> dict[str, Any] | None:
    """Return the shapes in the header of a safetensors file; None for another or a longer one."""
    length = int.from_bytes(head[:_LENGTH_BYTES], "little")
    if head[_LENGTH_BYTES : _LENGTH_BYTES + 1] != b"{" or length > len(head) - _LENGTH_BYTES:
        return None
    try:
        header = json.loads(head[_LENGTH_BYTES : _LENGTH_BYTES + length])
        shapes = {
            name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if not all(isinstance(size, int) for shape in shapes.values() for size in shape):
        return None
    return {name: _Shaped(shape) for name, shape in shapes.items()}


def stated_heads(params: VQKDTrainingParams) -> int | None:
    """Return the attention heads that the recipe states, for a file that does not hold them."""
    return params.num_heads if "num_heads" in params.model_fields_set else None


def misfit(config: VQKDConfig, params: VQKDTrainingParams) -> str | None:
    """Return what of a given tokenizer contradicts the recipe, or None.

    Its sizes are those of its file; a size that the recipe states as well must be the same. Its
    grid is the recipe's, since position tables are interpolated.
    """
    if config.num_codes > _MAX_CODES:
        return f"it has {config.num_codes} codes, more than the {_MAX_CODES} that fit 16 bits"
    for name in _SIZES:
        stated, found = getattr(params, name), getattr(config, name)
        if name in params.model_fields_set and stated != found:
            return (
                f"its {name} is {found}, the recipe's {stated}; remove image_tokenizer.{name}, "
                "which the file says"
            )
    return None


def num_codes_of(params: VQKDTrainingParams, weights: str | None) -> int:
    """Return the number of codes of the tokenizer that a recipe trains or gives.

    The recipe's number stands for that of a file that is not fetched for a plan (a remote torch
    file) or that cannot be read, which the stage's ``requires`` reports.
    """
    if weights is None:
        return params.num_codes
    try:
        if is_uri(weights):
            shapes = safetensors_shapes(head_of(weights, _HEAD_BYTES))
        else:
            shapes = dict(unwrapped(read_saved(weights)))
        found = sizes(shapes, num_heads=1)["num_codes"] if shapes else params.num_codes
    except (OSError, ValueError, IndexError, RecipeError):
        return params.num_codes
    return int(found)
