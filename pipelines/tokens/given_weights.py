"""Checks of weights that a recipe names, before anything runs.

A local file is read whole by the program that uses it. Of a remote one only the beginning is
fetched: enough to see that it is weights at all, and, for safetensors, the shapes of its tensors.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

from orchestration.storage.remote_files import head_of
from pipelines.ingest.preview import form_of
from pipelines.tokens.vqkd_training import VQKDTrainingParams
from tokenizer.beit_v2 import sizes
from tokenizer.vqkd import VQKDConfig

_HEAD_BYTES: Final = 1 << 20
_PICKLE: Final = b"\x80"
_LENGTH_BYTES: Final = 8
_FORMS: Final = ("zip", "binary")
"Forms of a torch file: a zip archive, or a bare pickle of old versions."


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
        found = sizes(shapes, params.num_heads)  # only shapes are read
    except (ValueError, IndexError) as error:
        return f"{uri}: not a VQ-KD tokenizer: {error}"
    reason = misfit(VQKDConfig(**found), params)
    return f"{uri}: {reason}" if reason else None


def safetensors_shapes(head: bytes) -> dict[str, Any] | None:
    """Return the shapes in the header of a safetensors file; None for another or a longer one."""
    length = int.from_bytes(head[:_LENGTH_BYTES], "little")
    if head[_LENGTH_BYTES : _LENGTH_BYTES + 1] != b"{" or length > len(head) - _LENGTH_BYTES:
        return None
    try:
        header = json.loads(head[_LENGTH_BYTES : _LENGTH_BYTES + length])
        return {
            name: _Shaped(tuple(entry["shape"]))
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def misfit(config: VQKDConfig, params: VQKDTrainingParams) -> str | None:
    """Return what of a given tokenizer does not fit the recipe, or None."""
    grid = params.image_size // params.patch_size
    if config.grid != grid:
        return (
            f"it has {config.grid} x {config.grid} positions (images of {config.image_size} pixels "
            f"in patches of {config.patch_size}), the recipe {grid} x {grid}; set "
            f"image_tokenizer.image_size={config.image_size}, "
            f"image_tokenizer.patch_size={config.patch_size} and train.network.image_size to match"
        )
    if config.num_codes != params.num_codes:
        return (
            f"it has {config.num_codes} codes, the recipe {params.num_codes}; set "
            f"image_tokenizer.num_codes={config.num_codes}"
        )
    return None
