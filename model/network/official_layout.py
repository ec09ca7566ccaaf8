"""The official layout: its names, and reading it into this project's names.

It is the layout of the released checkpoints (github.com/microsoft/unilm, beit3); A is vision, B is
language. :mod:`model.network.interop` writes it.
"""

import re
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from model.network.loading import StateMismatch, shape_words, with_nearest
from model.network.weight_files import unwrapped

UNUSED_ROWS: Final = 2
OFFICIAL_TEXT_ROWS: Final = 1024
"Rows of the text position table that the authors' classes build, unused rows included."
LETTERS: Final = {"vision": "A", "language": "B"}
OUR_LAYER: Final = "blocks.{}."
OFFICIAL_LAYER: Final = "beit3.encoder.layers.{}."


def expanded(names: Mapping[str, str]) -> dict[str, str]:
    """Expand the placeholders for modality (m) and kind (k) into every combination."""
    return {
        ours.format(m=modality, k=kind): foreign.format(m=letter, k=kind)
        for ours, foreign in names.items()
        for modality, letter in LETTERS.items()
        for kind in ("weight", "bias")
    }


OFFICIAL: Final = expanded(
    {
        "vision.patch.{k}": "beit3.vision_embed.proj.{k}",
        "vision.mask_token": "beit3.vision_embed.mask_token",
        "vision.class_token": "beit3.vision_embed.cls_token",
        "language.tokens.weight": "beit3.text_embed.weight",
        "{m}.positions": "beit3.encoder.embed_positions.{m}.weight",
        "norm.{m}.{k}": "beit3.encoder.layer_norm.{m}.{k}",
        "mlm_head.{k}": "mlm_head.{k}",
        "mim_head.{k}": "mim_head.{k}",
    }
)
OFFICIAL_BLOCK: Final = expanded(
    {
        "attention_norm.{m}.{k}": "self_attn_layer_norm.{m}.{k}",
        "attention.q.{m}.{k}": "self_attn.q_proj.{m}.{k}",
        "attention.k.{m}.{k}": "self_attn.k_proj.{m}.{k}",
        "attention.v.{m}.{k}": "self_attn.v_proj.{m}.{k}",
        "attention.inner_norm.{m}.{k}": "self_attn.inner_attn_ln.{m}.{k}",
        "attention.out.{m}.{k}": "self_attn.out_proj.{m}.{k}",
        "experts.{m}.norm.{k}": "final_layer_norm.{m}.{k}",
        "experts.{m}.fc1.{k}": "ffn.{m}.fc1.{k}",
        "experts.{m}.inner_norm.{k}": "ffn.{m}.ffn_layernorm.{k}",
        "experts.{m}.fc2.{k}": "ffn.{m}.fc2.{k}",
    }
)
_TASK_HEADS: Final = {
    "retrieval": r"(vision_head|language_head)\.(weight|bias)|(criterion\.)?logit_scale",
    "vqa": r"pooler\.(norm|dense)\.(weight|bias)|head\.\d+\.(weight|bias)",
    "nlvr2": r"head\.(norm|dense)\d+\.(weight|bias)",
    "imagenet": r"(fc_norm|head)\.(weight|bias)",
    "detection": r"(pyramid|proposals|cascade|mask_head)\..+",
    "segmentation": r"adapter\..+|head\.(pyramid|branches|classes|pixel_decoder|query_decoder|"
    r"class_predictor)\..+",
}
"""Names of the heads of the authors' fine-tuning classes, and of this project's detector and
segmenter. Captioning's is ``mlm_head``."""
_NETWORK: Final = "beit3."
"Prefix of every official name outside the heads."


def from_official(saved: Mapping[str, object]) -> dict[str, Tensor]:
    """Return the state of a decoupled network from a whole or partial official state.

    Heads of tasks are left out, see :func:`task_heads`. Load the encoder of a fine-tuned network
    with ``load(network, state, ENCODER)``.

    Args:
        saved: the official state, or what its file holds: envelopes and prefixes are removed.

    Raises:
        StateMismatch: names that the layout does not have, or a q, k or v without the other two or
            of another shape; the message lists all of them.
        ValueError: ``saved`` holds no tensors.
    """
    state = unwrapped(saved)
    names = {ours: theirs for theirs, ours in OFFICIAL.items()}
    in_block = {ours: theirs for theirs, ours in OFFICIAL_BLOCK.items()}
    result: dict[str, Tensor] = {}
    qkv: dict[str, dict[str, Tensor]] = {}
    unknown: list[str] = []
    heads: list[str] = []
    for official, tensor in state.items():
        name = renamed(official, names, in_block, OFFICIAL_LAYER, OUR_LAYER)
        if name is None:
            (unknown if official.startswith(_NETWORK) else heads).append(official)
        elif found := re.search(r"\.attention\.([qkv])\.", name):
            whole = name.replace(found[0], ".attention.qkv.")
            qkv.setdefault(whole, {})[found[1]] = tensor
        elif name.endswith("_token"):
            result[name] = tensor.reshape(-1)
        elif name.endswith(".positions"):
            result[name] = tensor[UNUSED_ROWS:] if tensor.ndim else tensor
        else:
            result[name] = tensor
    incomplete = [f"{name}: only {', '.join(t)}" for name, t in qkv.items() if len(t) < 3]
    unequal = [
        f"{name}: {', '.join(f'{part} {shape_words(tensor)}' for part, tensor in parts.items())}"
        for name, parts in qkv.items()
        if len({tensor.shape for tensor in parts.values()}) > 1
        or min(t.ndim for t in parts.values()) == 0
    ]
    if not (result or qkv):
        unknown, heads = [*unknown, *heads], []
    if unknown or incomplete or unequal:
        known = [*names, *(OFFICIAL_LAYER.format(0) + name for name in in_block)]
        raise StateMismatch(
            {
                "not names of the official layout": with_nearest(unknown, known),
                "q, k and v must come together": incomplete,
                "q, k and v must have one shape": unequal,
                f"outside {_NETWORK}*, so heads of tasks": heads,
            }
        )
    return result | {n: torch.cat([t["q"], t["k"], t["v"]]) for n, t in qkv.items()}


def task_heads(saved: Mapping[str, object]) -> dict[str, dict[str, Tensor]]:
    """Return the heads in an official file that belong to a task, by task and official name.

    Tasks are ``retrieval``, ``vqa``, ``nlvr2`` and ``imagenet``; tensors of no known head are under
    ``other``. Captioning's head has the names of the network's ``mlm_head`` and is not among them.

    Args:
        saved: as in :func:`from_official`.
    """
    heads: dict[str, dict[str, Tensor]] = {}
    for name, tensor in unwrapped(saved).items():
        if name.startswith(_NETWORK) or name in OFFICIAL.values():
            continue
        tasks = (task for task, names in _TASK_HEADS.items() if re.fullmatch(names, name))
        heads.setdefault(next(tasks, "other"), {})[name] = tensor
    return heads


def renamed(
    name: str,
    names: Mapping[str, str],
    in_block: Mapping[str, str],
    layer_from: str,
    layer_to: str,
) -> str | None:
    """Return the name in another layout, or None if that layout does not have it."""
    before, _, after = layer_from.partition("{}")
    if not (found := re.fullmatch(rf"{re.escape(before)}(\d+){re.escape(after)}(.+)", name)):
        return names.get(name)
    target = in_block.get(found[2])
    return None if target is None else layer_to.format(found[1]) + target
