"""Conversion between this project's weights and the layouts of other programs.

The official layout is that of the released checkpoints (github.com/microsoft/unilm, beit3); A is
vision, B is language. It has decoupled attention only, so shared weights are written twice, which
computes the same. It has no vision-language experts: they are omitted, so that pairs are computed
otherwise, and :func:`to_official` returns their names. Its position tables begin with two unused
rows, and its text table has one length, whatever the network's. The authors' classes always build
sub-LayerNorm: :func:`same_in_official_classes`. timm's layout holds the vision half.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import torch
from torch import Tensor

from model.network.config import BEiT3Config
from model.network.loading import PARTS, Part
from model.network.official_layout import (
    LETTERS,
    OFFICIAL,
    OFFICIAL_BLOCK,
    OFFICIAL_LAYER,
    OFFICIAL_TEXT_ROWS,
    OUR_LAYER,
    UNUSED_ROWS,
    expanded,
    from_official,
    renamed,
    task_heads,
)
from model.network.whole_state import check_whole

__all__ = [
    "OFFICIAL_TEXT_ROWS",
    "from_official",
    "same_in_official_classes",
    "task_heads",
    "to_official",
    "to_timm",
]

_TIMM: Final = expanded(
    {
        "vision.patch.{k}": "patch_embed.proj.{k}",
        "vision.class_token": "cls_token",
        "vision.positions": "pos_embed",
        "norm.vision.{k}": "norm.{k}",
    }
)
_TIMM_BLOCK: Final = expanded(
    {
        "attention_norm.vision.{k}": "norm1.{k}",
        "attention.qkv.vision.{k}": "attn.qkv.{k}",
        "attention.inner_norm.vision.{k}": "attn.norm.{k}",
        "attention.out.vision.{k}": "attn.proj.{k}",
        "experts.vision.norm.{k}": "norm2.{k}",
        "experts.vision.fc1.{k}": "mlp.fc1.{k}",
        "experts.vision.inner_norm.{k}": "mlp.norm.{k}",
        "experts.vision.fc2.{k}": "mlp.fc2.{k}",
    }
)


def same_in_official_classes(config: BEiT3Config) -> bool:
    """Return whether the authors' classes compute the same as a network of ``config``.

    They always build sub-LayerNorm and never a vision-language expert. Their sizes, and whether
    there is a final norm (``normalize_output``), are arguments.
    """
    return config.subln and not config.fusion_layers


def to_official(
    state: Mapping[str, Tensor], config: BEiT3Config, parts: Iterable[Part] = PARTS
) -> tuple[dict[str, Tensor], list[str]]:
    """Return (official state, names of ``state`` that the official layout does not have).

    The text position table gets the length that the authors' classes build: zeros fill it up, and
    positions beyond it, which no text in those classes can have, are omitted.

    Args:
        state: of the network.
        config: of the network.
        parts: what ``state`` must hold; networks of tasks have ``ENCODER`` alone.

    Raises:
        StateMismatch: ``state`` lacks a part of a network of ``config``, or has other names.
    """
    check_whole(state, config, parts)
    official: dict[str, Tensor] = {}
    omitted: list[str] = []
    for name, tensor in state.items():
        targets = {
            target: part
            for split_name, part in _split_qkv(name, tensor)
            for one in _each_modality(split_name)
            if (target := renamed(one, OFFICIAL, OFFICIAL_BLOCK, OUR_LAYER, OFFICIAL_LAYER))
        }
        if not targets:
            omitted.append(name)
        elif name.endswith("_token"):
            targets = {target: part[None, None] for target, part in targets.items()}
        elif name.endswith(".positions"):
            table = torch.cat([tensor.new_zeros(UNUSED_ROWS, tensor.shape[1]), tensor])
            if name == "language.positions":
                if len(table) > OFFICIAL_TEXT_ROWS:
                    omitted.append(f"{name} from row {OFFICIAL_TEXT_ROWS - UNUSED_ROWS}")
                table = _with_rows(table, OFFICIAL_TEXT_ROWS)
            targets = dict.fromkeys(targets, table)
        official.update(targets)
    return official, omitted


def to_timm(
    state: Mapping[str, Tensor], config: BEiT3Config, parts: Iterable[Part] = PARTS
) -> dict[str, Tensor]:
    """Return the vision half in the layout of timm's ``beit3_*`` models, without a head.

    Load it with ``timm.create_model(name, checkpoint_path=…, num_classes=0, global_pool="token")``.
    Without sub-LayerNorm it is the layout of timm's plain ViT.

    Raises:
        StateMismatch: ``state`` is not the whole state of a network of ``config``.
    """
    check_whole(state, config, parts)
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        ours = name.replace(".both.", ".vision.")
        target = renamed(ours, _TIMM, _TIMM_BLOCK, OUR_LAYER, OUR_LAYER)
        if target == "cls_token":
            result[target] = tensor[None, None]
        elif target == "pos_embed":
            result[target] = tensor[None]
        elif target:
            result[target] = tensor
    return result


def _with_rows(table: Tensor, rows: int) -> Tensor:
    """Return a table of exactly ``rows`` rows: cut, or filled up with zeros."""
    missing = table.new_zeros(max(rows - len(table), 0), table.shape[1])
    return torch.cat([table[:rows], missing])


def _split_qkv(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    if ".attention.qkv." not in name:
        yield name, tensor
        return
    for letter, part in zip("qkv", tensor.chunk(3), strict=True):
        yield name.replace(".qkv.", f".{letter}."), part


def _each_modality(name: str) -> list[str]:
    if ".both." not in name:
        return [name]
    return [name.replace(".both.", f".{modality}.") for modality in LETTERS]
