"""Conversion between this project's weights and the layouts of other programs.

The official layout is that of the released checkpoints (github.com/microsoft/unilm, beit3); A is
vision, B is language. It has decoupled attention only, so shared weights are written twice, which
computes the same. It has no vision-language experts: they are omitted, so that pairs are computed
otherwise, and :func:`to_official` returns their names. Its position tables begin with two unused
rows, and its text table has one length, whatever the network's. The authors' classes always build
sub-LayerNorm: :func:`same_in_official_classes`. timm's layout holds the vision half.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import torch
from torch import Tensor

from model.network.config import BEiT3Config
from model.network.loading import PARTS, Part, StateMismatch, check_whole, with_nearest
from model.network.weight_files import unwrapped

_UNUSED_ROWS: Final = 2
OFFICIAL_TEXT_ROWS: Final = 1024
"Rows of the text position table that the authors' classes build, unused rows included."
_LETTERS: Final = {"vision": "A", "language": "B"}
_OUR_LAYER: Final = "blocks.{}."
_OFFICIAL_LAYER: Final = "beit3.encoder.layers.{}."


def _expanded(names: Mapping[str, str]) -> dict[str, str]:
    """Expand the placeholders for modality (m) and kind (k) into every combination."""
    return {
        ours.format(m=modality, k=kind): foreign.format(m=letter, k=kind)
        for ours, foreign in names.items()
        for modality, letter in _LETTERS.items()
        for kind in ("weight", "bias")
    }


_OFFICIAL: Final = _expanded(
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
_OFFICIAL_BLOCK: Final = _expanded(
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
}
"Names of the heads of the authors' fine-tuning classes; captioning's is ``mlm_head``."
_NETWORK: Final = "beit3."
"Prefix of every official name outside the heads."
_TIMM: Final = _expanded(
    {
        "vision.patch.{k}": "patch_embed.proj.{k}",
        "vision.class_token": "cls_token",
        "vision.positions": "pos_embed",
        "norm.vision.{k}": "norm.{k}",
    }
)
_TIMM_BLOCK: Final = _expanded(
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
            if (target := _renamed(one, _OFFICIAL, _OFFICIAL_BLOCK, _OUR_LAYER, _OFFICIAL_LAYER))
        }
        if not targets:
            omitted.append(name)
        elif name.endswith("_token"):
            targets = {target: part[None, None] for target, part in targets.items()}
        elif name.endswith(".positions"):
            table = torch.cat([tensor.new_zeros(_UNUSED_ROWS, tensor.shape[1]), tensor])
            if name == "language.positions":
                if len(table) > OFFICIAL_TEXT_ROWS:
                    omitted.append(f"{name} from row {OFFICIAL_TEXT_ROWS - _UNUSED_ROWS}")
                table = _with_rows(table, OFFICIAL_TEXT_ROWS)
            targets = dict.fromkeys(targets, table)
        official.update(targets)
    return official, omitted


def from_official(saved: Mapping[str, object]) -> dict[str, Tensor]:
    """Return the state of a decoupled network from a whole or partial official state.

    Heads of tasks are left out, see :func:`task_heads`. Load the encoder of a fine-tuned network
    with ``load(network, state, ENCODER)``.

    Args:
        saved: the official state, or what its file holds: envelopes and prefixes are removed.

    Raises:
        StateMismatch: names that the layout does not have, or a q, k or v without the other two;
            the message lists all of them.
        ValueError: ``saved`` holds no tensors.
    """
    state = unwrapped(saved)
    names = {ours: theirs for theirs, ours in _OFFICIAL.items()}
    in_block = {ours: theirs for theirs, ours in _OFFICIAL_BLOCK.items()}
    result: dict[str, Tensor] = {}
    qkv: dict[str, dict[str, Tensor]] = {}
    unknown: list[str] = []
    heads: list[str] = []
    for official, tensor in state.items():
        name = _renamed(official, names, in_block, _OFFICIAL_LAYER, _OUR_LAYER)
        if name is None:
            (unknown if official.startswith(_NETWORK) else heads).append(official)
        elif found := re.search(r"\.attention\.([qkv])\.", name):
            whole = name.replace(found[0], ".attention.qkv.")
            qkv.setdefault(whole, {})[found[1]] = tensor
        elif name.endswith("_token"):
            result[name] = tensor.reshape(-1)
        elif name.endswith(".positions"):
            result[name] = tensor[_UNUSED_ROWS:]
        else:
            result[name] = tensor
    incomplete = [f"{name}: only {', '.join(t)}" for name, t in qkv.items() if len(t) < 3]
    if not (result or qkv):
        unknown, heads = [*unknown, *heads], []
    if unknown or incomplete:
        known = [*names, *(_OFFICIAL_LAYER.format(0) + name for name in in_block)]
        raise StateMismatch(
            {
                "not names of the official layout": with_nearest(unknown, known),
                "q, k and v must come together": incomplete,
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
        if name.startswith(_NETWORK) or name in _OFFICIAL.values():
            continue
        tasks = (task for task, names in _TASK_HEADS.items() if re.fullmatch(names, name))
        heads.setdefault(next(tasks, "other"), {})[name] = tensor
    return heads


def to_timm(state: Mapping[str, Tensor], config: BEiT3Config) -> dict[str, Tensor]:
    """Return the vision half in the layout of timm's ``beit3_*`` models, without a head.

    Load it with ``timm.create_model(name, checkpoint_path=…, num_classes=0, global_pool="token")``.
    Without sub-LayerNorm it is the layout of timm's plain ViT.

    Raises:
        StateMismatch: ``state`` is not the whole state of a network of ``config``.
    """
    check_whole(state, config)
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        ours = name.replace(".both.", ".vision.")
        target = _renamed(ours, _TIMM, _TIMM_BLOCK, _OUR_LAYER, _OUR_LAYER)
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


def _renamed(
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


def _split_qkv(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    if ".attention.qkv." not in name:
        yield name, tensor
        return
    for letter, part in zip("qkv", tensor.chunk(3), strict=True):
        yield name.replace(".qkv.", f".{letter}."), part


def _each_modality(name: str) -> list[str]:
    if ".both." not in name:
        return [name]
    return [name.replace(".both.", f".{modality}.") for modality in _LETTERS]
