"""The configuration of a network from its weights, where no file beside them says it."""

import math
from collections.abc import Mapping
from typing import Any, Final

from torch import Tensor

from model.network.config import SIZES, BEiT3Config
from model.network.layouts import StartMismatch, form_of, in_our_layout, listed
from model.network.loading import shape_words

RELEASED_HEAD_WIDTH: Final = 64
"Width of an attention head in every released network."
_FINAL_NORM: Final = "norm."
_SHAPES: Final = {
    "vision.class_token": 1,
    "vision.patch.weight": 4,
    "vision.positions": 2,
    "language.tokens.weight": 2,
    "language.positions": 2,
    "blocks.0.experts.vision.fc1.weight": 2,
}
"Tensors whose shapes give the sizes of a network, with their numbers of dimensions."


def config_of(saved: Mapping[str, object], **changes: Any) -> BEiT3Config:
    """Return the configuration that names and shapes of weights say.

    They do not say the number of attention heads: it is that of the named size of this width and
    depth, else one head per 64 as in every released network.

    Args:
        saved: weights in this project's or the official layout, or what their file holds.
        changes: fields of the configuration with other values.

    Raises:
        StartMismatch: a tensor that says a size is missing or has another form.
        ValueError: ``saved`` holds no tensors, or the sizes do not fit together.
    """
    _, state, _ = in_our_layout(saved)
    if missing := [name for name in _SHAPES if name not in state]:
        raise StartMismatch(f"the weights lack {listed(missing)}; give a whole network")
    for name, num_dimensions in _SHAPES.items():
        if state[name].ndim != num_dimensions or 0 in state[name].shape:
            raise StartMismatch(f"{name} is {shape_words(state[name])}; give a whole network")
    form: dict[str, Any] = form_of(state)
    num_patches = len(state["vision.positions"]) - 1
    if math.isqrt(num_patches) ** 2 != num_patches:
        raise StartMismatch(f"vision.positions has {num_patches} patches, which form no square")
    heads = state.get("mim_head.bias")
    stated = {
        **form,
        "num_heads": _num_heads(form["width"], form["depth"]),
        "image_size": math.isqrt(num_patches) * form["patch_size"],
        "vocab_size": len(state["language.tokens.weight"]),
        "max_text_length": len(state["language.positions"]),
        "final_norm": has_final_norm(state),
    } | ({} if heads is None or not heads.ndim else {"num_codes": len(heads)})
    return BEiT3Config(**stated | changes)


def has_final_norm(state: Mapping[str, Tensor]) -> bool:
    """Return whether an encoder, in this project's names, has a LayerNorm after its last block."""
    return any(name.startswith(_FINAL_NORM) for name in state)


def _num_heads(width: int, depth: int) -> int:
    for size in SIZES.values():
        if (size.width, size.depth) == (width, depth):
            return size.num_heads
    if width % RELEASED_HEAD_WIDTH:
        raise StartMismatch(
            f"the weights do not say their number of attention heads, and width {width} is not a "
            f"multiple of {RELEASED_HEAD_WIDTH} as in released networks; give an export, which has "
            "network.json"
        )
    return width // RELEASED_HEAD_WIDTH
