"""The layout of given weights: this project's or the official one, and the form that names say."""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Final, Literal

import torch
from torch import Tensor

from model.network.loading import shape_words
from model.network.official_layout import from_official, task_heads
from model.network.weight_files import unwrapped

_NETWORK: Final = ("vision.", "language.", "blocks.", "norm.", "mlm_head.", "mim_head.")
_OF_TASK: Final = "network."
"Prefix of the encoder's names in a network of a task, see ``model.finetuning.task_networks``."
_OFFICIAL: Final = "beit3."
_TIMM: Final = "patch_embed.proj.weight"
_FEWEST_BYTES: Final = 2
"Smaller numbers need factors, which files of weights name in many ways."
MAX_NAMED: Final = 3
_MAX_LISTED: Final = 8


class StartMismatch(ValueError):
    """The weights cannot be taken; the message is one line."""


class FormMismatch(StartMismatch):
    """The weights are those of a network of another form."""


def in_our_layout(
    saved: Mapping[str, object],
) -> tuple[Literal["official", "ours"], dict[str, Tensor], list[str]]:
    """Return (layout of the weights, their state in our names, names of heads of other tasks).

    Raises:
        StartMismatch: the weights have neither layout.
        ValueError: ``saved`` holds no tensors.
    """
    tensors = unwrapped(saved)
    if any(name.startswith(_OFFICIAL) for name in tensors):
        heads = [name for of_task in task_heads(tensors).values() for name in of_task]
        try:
            return "official", from_official(tensors), heads
        except ValueError as error:
            raise StartMismatch(" ".join(str(error).split())) from None
    if any(name.startswith(_OF_TASK) for name in tensors):
        inner = {n.removeprefix(_OF_TASK): t for n, t in tensors.items() if n.startswith(_OF_TASK)}
        return "ours", inner, [name for name in tensors if not name.startswith(_OF_TASK)]
    if "vision.class_token" in tensors or "language.tokens.weight" in tensors:
        known = {n: t for n, t in tensors.items() if n.startswith(_NETWORK)}
        return "ours", known, [name for name in tensors if name not in known]
    if _TIMM in tensors:
        raise StartMismatch(
            "the weights are in timm's layout, which holds the vision half alone; give the whole "
            "network, in the official layout or this project's"
        )
    raise StartMismatch(
        "the weights are no BEiT-3 network in the official layout or this project's: "
        f"{named(tensors)}"
    )


def form_of(state: Mapping[str, Tensor]) -> dict[str, object]:
    """Return the fields of the network's configuration that names and shapes of a state say."""
    blocks = {int(found[1]) for name in state if (found := re.match(r"blocks\.(\d+)\.", name))}
    fused = {name.split(".")[1] for name in state if ".fusion." in name}
    form: dict[str, object] = {"depth": len(blocks), "fusion_layers": len(fused)}
    of_shapes: dict[str, tuple[str, Callable[[torch.Size], int]]] = {
        "width": (r"vision\.class_token", lambda shape: shape[0]),
        "ffn_width": (r"blocks\.0\.experts\.\w+\.fc1\.weight", lambda shape: shape[0]),
        "patch_size": (r"vision\.patch\.weight", lambda shape: shape[-1]),
    }
    for field, (pattern, number) in of_shapes.items():
        for name, tensor in state.items():
            if re.fullmatch(pattern, name) and tensor.ndim:
                form[field] = number(tensor.shape)
                break
    if blocks:
        shared = any(".attention.qkv.both." in name for name in state)
        form["attention"] = "shared" if shared else "decoupled"
        one_expert = any(".experts.both." in name for name in state)
        form["experts"] = "shared" if one_expert else "multiway"
        form["subln"] = any(".inner_norm." in name for name in state)
    return form


def listed(names: Collection[str], most: int = _MAX_LISTED) -> str:
    """Return names separated by commas; of many the first ones and the number of the others."""
    shown, rest = ", ".join(list(names)[:most]), len(names) - most
    return f"{shown} and {rest} more" if rest > 0 else shown


def named(tensors: Mapping[str, Tensor]) -> str:
    """Return the first names and shapes of tensors, in words."""
    return listed([f"{name} {shape_words(tensor)}" for name, tensor in tensors.items()], MAX_NAMED)


def refuse_values(state: Mapping[str, Tensor]) -> None:
    """Raise :class:`StartMismatch` unless weights of 16 bits or more are finite numbers in fp32."""
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            raise StartMismatch(f"{name} is {tensor.dtype}; weights are floating-point numbers")
        if tensor.itemsize < _FEWEST_BYTES:
            raise StartMismatch(f"{name} is {tensor.dtype}; give weights of 16 bits or more")
        if not tensor.is_meta and not bool(tensor.float().isfinite().all()):
            raise StartMismatch(f"{name} holds values that are not finite; give other weights")
