"""The official layout: the same weights under the names of the released checkpoints.

A is vision, B is language. The layout has decoupled attention only, so shared weights are written
twice: exact for pictures alone and texts alone. It has no vision-language experts: those of a
network with fusion layers stay behind, and :func:`to_official` says which.
Position tables have two unused leading rows.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from model.network.config import BEiT3Config

_BRANCHES = {"vision": "A", "language": "B"}
_UNUSED_ROWS = 2
_EXPERT = {
    "norm": "final_layer_norm",
    "fc1": "ffn.{}.fc1",
    "fc2": "ffn.{}.fc2",
    "inner_norm": "ffn.{}.ffn_layernorm",
}


def to_official(
    state: Mapping[str, Tensor], config: BEiT3Config
) -> tuple[dict[str, Tensor], list[str]]:
    """Return (official state, names that the layout has no place for)."""
    official: dict[str, Tensor] = {}
    left: list[str] = []
    for name, tensor in state.items():
        targets = list(_official_names(name, tensor, config))
        if not targets:
            left.append(name)
        official.update(targets)
    return official, left


def from_official(state: Mapping[str, Tensor], config: BEiT3Config) -> dict[str, Tensor]:
    """Return the state of a decoupled network from the official layout.

    Raises:
        ValueError: ``config`` has another form, or keys are missing or unknown (all are listed).
    """
    if config.attention != "decoupled" or config.fusion_layers:
        raise ValueError("the official layout fits attention='decoupled', fusion_layers=0 only")
    from model.network.beit3 import BEiT3

    with torch.device("meta"):
        ours = BEiT3(config).state_dict()
    result: dict[str, Tensor] = {}
    used: set[str] = set()
    missing: list[str] = []
    for name, empty in ours.items():
        names = [key for key, _ in _official_names(name, empty, config)]
        used.update(names)
        if absent := [key for key in names if key not in state]:
            missing += absent
            continue
        tensors = [state[key] for key in names]
        tensor = torch.cat(tensors) if ".qkv." in name else tensors[0]
        if name.endswith("positions"):
            tensor = tensor[_UNUSED_ROWS:]
        result[name] = tensor.reshape(empty.shape)
    unknown = sorted(state.keys() - used)
    if missing or unknown:
        raise ValueError(f"official state does not fit; missing: {missing}; unknown: {unknown}")
    return result


def _official_names(name: str, tensor: Tensor, config: BEiT3Config) -> Iterator[tuple[str, Tensor]]:
    """Yield (official name, tensor) for one of our parameters; nothing if it has no place."""
    parts = name.split(".")
    match parts:
        case ["vision", "patch", kind]:
            yield f"beit3.vision_embed.proj.{kind}", tensor
        case ["vision", "mask_token" | "class_token" as token]:
            short = "cls_token" if token == "class_token" else token
            yield f"beit3.vision_embed.{short}", tensor[None, None]
        case ["language", "words", "weight"]:
            yield "beit3.text_embed.weight", tensor
        case ["vision" | "language" as branch, "positions"]:
            key = f"beit3.encoder.embed_positions.{_BRANCHES[branch]}.weight"
            yield key, torch.cat([tensor.new_zeros(_UNUSED_ROWS, tensor.shape[1]), tensor])
        case ["mlm_head" | "mim_head", _]:
            yield name, tensor
        case ["norm", which, kind]:
            for letter in _letters(which):
                yield f"beit3.encoder.layer_norm.{letter}.{kind}", tensor
        case ["blocks", layer, "experts", which, module, kind]:
            target = _EXPERT[module].format(_BRANCHES[which])
            if module == "norm":
                target = f"final_layer_norm.{_BRANCHES[which]}"
            yield f"beit3.encoder.layers.{layer}.{target}.{kind}", tensor
        case ["blocks", layer, "attention_norm", which, kind]:
            for letter in _letters(which):
                yield f"beit3.encoder.layers.{layer}.self_attn_layer_norm.{letter}.{kind}", tensor
        case ["blocks", layer, "attention", module, which, kind]:
            prefix = f"beit3.encoder.layers.{layer}.self_attn"
            for letter in _letters(which):
                if module == "qkv":
                    for projection, part in zip("qkv", tensor.chunk(3), strict=True):
                        yield f"{prefix}.{projection}_proj.{letter}.{kind}", part
                else:
                    target = "out_proj" if module == "out" else "inner_attn_ln"
                    yield f"{prefix}.{target}.{letter}.{kind}", tensor


def _letters(which: str) -> str:
    return "AB" if which == "both" else _BRANCHES[which]
