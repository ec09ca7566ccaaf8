"""The file layout of BEiT v2's published tokenizers (``vqkd_encoder_base_decoder_*.pth``).

``{"model": state}`` with ``encoder.*``, ``decoder.*``, ``encode_task_layer.*``,
``decode_task_layer.*`` and ``quantize.*`` (github.com/microsoft/unilm, beit2). Three entries
differ from this project's: the moving average of code usage is ``quantize.cluster_size``,
``quantize.embedding.cluster_size`` is a leftover of k-means, and
``quantize.embedding.embed_avg`` is never read. A file from training also holds the teacher, which
is dropped.
"""

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

_USAGE: Final = "quantize.cluster_size"
_OUR_USAGE: Final = "quantize.embedding.cluster_size"
_UNUSED: Final = "quantize.embedding.embed_avg"
_NOT_OURS: Final = ("teacher_model.", "scaling_layer.", "loss.")
_HEAD_WIDTH: Final = 64


def to_beit_v2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a tokenizer's weights under the names that BEiT v2's code loads strictly."""
    copies = {
        _USAGE: state[_OUR_USAGE].clone(),
        _UNUSED: state["quantize.embedding.weight"].clone(),
    }
    return {**state, **copies}


def from_beit_v2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a published tokenizer under this project's names."""
    ours = {
        key: value
        for key, value in state.items()
        if not key.startswith(_NOT_OURS) and key not in (_USAGE, _UNUSED)
    }
    if _USAGE in state:
        ours[_OUR_USAGE] = state[_USAGE]
    return ours


def sizes(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the fields of a ``VQKDConfig``, inferred from the shapes of published weights.

    Raises:
        KeyError: an entry is missing, so these are not the weights of a VQ-KD tokenizer.
    """
    width, _, patch, _ = state["encoder.patch_embed.proj.weight"].shape
    num_codes, code_dim = state["quantize.embedding.weight"].shape
    grid = round((state["encoder.pos_embed"].shape[1] - 1) ** 0.5)
    return {
        "image_size": grid * patch,
        "patch_size": patch,
        "width": width,
        "num_heads": width // _HEAD_WIDTH,
        "depth": _depth(state, "encoder"),
        "decoder_depth": _depth(state, "decoder"),
        "num_codes": num_codes,
        "code_dim": code_dim,
        "teacher_dim": state["decode_task_layer.2.weight"].shape[0],
    }


def _depth(state: Mapping[str, Tensor], part: str) -> int:
    return len({key.split(".")[2] for key in state if key.startswith(f"{part}.blocks.")})


def weights_of(saved: object) -> dict[str, Tensor]:
    """Return the weights in a loaded file: under ``model``, under ``state_dict``, or top-level.

    Raises:
        ValueError: the file holds no weights.
    """
    if isinstance(saved, Mapping):
        for key in ("model", "state_dict"):
            if isinstance(saved.get(key), Mapping):
                return dict(saved[key])
        if saved and all(isinstance(value, torch.Tensor) for value in saved.values()):
            return dict(saved)
    raise ValueError("it holds no weights under the keys model or state_dict")
