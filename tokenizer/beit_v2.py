"""The file layout of BEiT v2's published tokenizers (``vqkd_encoder_base_decoder_*.pth``).

``{"model": state}`` with ``encoder.*``, ``decoder.*``, ``encode_task_layer.*``,
``decode_task_layer.*`` and ``quantize.*`` (github.com/microsoft/unilm, beit2). Three entries
differ from this project's: the moving average of code usage is ``quantize.cluster_size``,
``quantize.embedding.cluster_size`` is a leftover of k-means, and
``quantize.embedding.embed_avg`` is never read. A file from training also holds the teacher, which
is dropped.
"""

import logging
from collections.abc import Mapping
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

_USAGE: Final = "quantize.cluster_size"
_OUR_USAGE: Final = "quantize.embedding.cluster_size"
_UNUSED: Final = "quantize.embedding.embed_avg"
_NOT_OURS: Final = ("teacher_model.", "scaling_layer.", "loss.")
_CODEBOOK: Final = "quantize.embedding.weight"
_SHAPES: Final = (
    "encoder.patch_embed.proj.weight",
    "encoder.pos_embed",
    _CODEBOOK,
    "decode_task_layer.2.weight",
)
"Entries whose shapes give the sizes."
_HEAD_WIDTH: Final = 64
"Width of an attention head in every tokenizer that BEiT v2 published."

_log = logging.getLogger(__name__)


def to_beit_v2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a tokenizer's weights under the names that BEiT v2's code loads strictly."""
    copies = {
        _USAGE: state[_OUR_USAGE].clone(),
        _UNUSED: state[_CODEBOOK].clone(),
    }
    return {**state, **copies}


def from_beit_v2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a published tokenizer under this project's names, in float32.

    A codebook of less precision is normalized again: codes are compared by cosine.
    """
    ours = {
        key: value.float() if value.is_floating_point() else value
        for key, value in state.items()
        if not key.startswith(_NOT_OURS) and key not in (_USAGE, _UNUSED)
    }
    if _USAGE in state:
        ours[_OUR_USAGE] = state[_USAGE].float()
    if _CODEBOOK in state and state[_CODEBOOK].dtype != torch.float32:
        ours[_CODEBOOK] = F.normalize(ours[_CODEBOOK], dim=-1)
    return ours


def sizes(state: Mapping[str, Tensor], num_heads: int | None) -> dict[str, Any]:
    """Return the fields of a ``VQKDConfig``, inferred from the shapes of published weights.

    Args:
        state: the weights.
        num_heads: attention heads, which no shape shows; None takes the width of a published
            tokenizer's head and logs a warning.

    Raises:
        ValueError: an entry is missing, or the number of heads can only be guessed.
    """
    if missing := [name for name in _SHAPES if name not in state]:
        raise ValueError(f"it has no {', '.join(missing)}")
    width, _, patch, _ = state["encoder.patch_embed.proj.weight"].shape
    num_codes, code_dim = state[_CODEBOOK].shape
    grid = round((state["encoder.pos_embed"].shape[1] - 1) ** 0.5)
    return {
        "image_size": grid * patch,
        "patch_size": patch,
        "width": width,
        "num_heads": num_heads or _guessed_heads(width),
        "depth": _depth(state, "encoder"),
        "decoder_depth": _depth(state, "decoder"),
        "num_codes": num_codes,
        "code_dim": code_dim,
        "teacher_dim": state["decode_task_layer.2.weight"].shape[0],
    }


def _depth(state: Mapping[str, Tensor], part: str) -> int:
    return len({key.split(".")[2] for key in state if key.startswith(f"{part}.blocks.")})


def _guessed_heads(width: int) -> int:
    if width % _HEAD_WIDTH:
        raise ValueError(
            f"its number of attention heads is not in the file, and a width of {width} is not a "
            f"multiple of {_HEAD_WIDTH}, the published width of a head; give num_heads"
        )
    num_heads = width // _HEAD_WIDTH
    _log.warning(
        "the number of attention heads is not in the tokenizer's file; %d is assumed, from its "
        "width %d; give num_heads if it has another number: its codes would be wrong",
        num_heads,
        width,
    )
    return num_heads
