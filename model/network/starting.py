"""Starting a network from given weights: ours or released ones, at any resolution, with any heads.

The weights must be those of a network of the same form. Only what a resolution, a text length or
a task changes may differ: position tables are fitted to the network's, heads that the weights do
not have keep their initial values, heads of other tasks are left out. What belongs to another
vocabulary or codebook is left out by the caller's explicit choice alone. A report names all of it.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor

from model.network.beit3 import BEiT3
from model.network.config import BEiT3Config
from model.network.interop import from_official, task_heads
from model.network.loading import fit_positions, shape_words
from model.network.weight_files import unwrapped

Fresh = Literal["vocabulary", "codebook"]
FRESH: Final[Mapping[Fresh, tuple[str, ...]]] = {
    "vocabulary": ("language.tokens.", "mlm_head."),
    "codebook": ("mim_head.",),
}
"What of a network belongs to its text vocabulary, and what to its image tokenizer's codebook."
_MAY_BE_ABSENT: Final = ("mlm_head.", "mim_head.", "norm.")
"Networks of other tasks have no prediction heads, and some of them no final norm."
_NETWORK: Final = ("vision.", "language.", "blocks.", "norm.", "mlm_head.", "mim_head.")
_OF_TASK: Final = "network."
"Prefix of the encoder's names in a network of a task, see ``model.finetuning.task_networks``."
_OFFICIAL: Final = "beit3."
_TIMM: Final = "patch_embed.proj.weight"
_FEWEST_BYTES: Final = 2
"Smaller numbers need factors, which files of weights name in many ways."
_MAX_NAMED: Final = 3
_MAX_LISTED: Final = 8


class StartMismatch(ValueError):
    """The weights are not those of a network of this form; the message is one line."""


@dataclass(frozen=True)
class StartReport:
    """What a network takes from given weights."""

    layout: Literal["official", "ours"]
    "Layout of the weights."
    loaded: tuple[str, ...]
    "Parameters whose values are given."
    fresh: tuple[str, ...]
    "Parameters that keep their initial values."
    unused: tuple[str, ...]
    "Names of the weights that the network has no parameter for, or that were left out by choice."
    adapted: tuple[str, ...]
    "Position tables of another size, each with what was done."

    def lines(self) -> Iterator[str]:
        """Yield the report in words, names in full."""
        layout = "the official" if self.layout == "official" else "this project's"
        yield f"{len(self.loaded)} parameters are loaded, given in {layout} layout"
        yield from self.adapted
        if self.fresh:
            yield f"initial values are kept by {listed(self.fresh)}"
        if self.unused:
            yield f"not used: {listed(self.unused)}"


def listed(names: Collection[str], most: int = _MAX_LISTED) -> str:
    """Return names separated by commas; of many the first ones and the number of the others."""
    shown, rest = ", ".join(list(names)[:most]), len(names) - most
    return f"{shown} and {rest} more" if rest > 0 else shown


def load_start(
    network: BEiT3, saved: Mapping[str, object], fresh: Collection[Fresh] = ()
) -> StartReport:
    """Load given weights into a network that is initialized and not yet distributed.

    Args:
        network: on any device.
        saved: as in :func:`fit_start`.
        fresh: as in :func:`fit_start`.

    Raises:
        StartMismatch: the weights do not fit; nothing was loaded.
        ValueError: ``saved`` holds no tensors.
    """
    fitted, report = fit_start(saved, network.config, fresh)
    apply_start(network, fitted)
    return report


@torch.no_grad()
def apply_start(network: BEiT3, fitted: Mapping[str, Tensor]) -> None:
    """Copy what :func:`fit_start` returned into a network; a shorter text table fills its rows."""
    ours = network.state_dict()
    for name, tensor in fitted.items():
        ours[name][: len(tensor)].copy_(tensor)


def fit_start(
    saved: Mapping[str, object], config: BEiT3Config, fresh: Collection[Fresh] = ()
) -> tuple[dict[str, Tensor], StartReport]:
    """Return the fp32 parameters that a network of ``config`` takes from weights, and a report.

    The text position table may have fewer rows than the network's, whose last rows are then fresh.

    Args:
        saved: weights in this project's or the official layout, or what their file holds; tensors
            on the device ``meta`` are compared by name and shape.
        config: of the network.
        fresh: tokenizers whose rows and heads are left out.

    Raises:
        StartMismatch: a name is missing or unknown, a shape differs, or a value is not finite.
        ValueError: ``saved`` holds no tensors.
    """
    layout, state, unused = in_our_layout(saved)
    without = tuple(prefix for choice in fresh for prefix in FRESH[choice])
    left_out = [name for name in state if name.startswith(without)] if without else []
    state = {name: tensor for name, tensor in state.items() if name not in left_out}
    with torch.device("meta"):
        ours = BEiT3(config).state_dict()
    _refuse_values(state)
    fitted = {n: fit_positions(n, t, ours[n]) if n in ours else t for n, t in state.items()}
    _refuse(fitted, ours, config, (*_MAY_BE_ABSENT, *without))
    adapted = list(_adapted(state, fitted, ours))
    absent = [name for name in ours if name not in fitted]
    report = StartReport(
        layout, tuple(fitted), tuple(absent), tuple(left_out + unused), tuple(adapted)
    )
    return {name: tensor.float() for name, tensor in fitted.items()}, report


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
        f"{_named(tensors)}"
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


def _refuse(
    state: Mapping[str, Tensor],
    ours: Mapping[str, Tensor],
    config: BEiT3Config,
    may_be_absent: tuple[str, ...],
) -> None:
    missing = {n: t for n, t in ours.items() if n not in state and not n.startswith(may_be_absent)}
    unknown = {name: tensor for name, tensor in state.items() if name not in ours}
    different = [
        f"{name} {shape_words(tensor)} given, {shape_words(ours[name])} in the network"
        for name, tensor in state.items()
        if name in ours and not _fits(name, tensor, ours[name])
    ]
    if not (missing or unknown or different):
        return
    form = form_of(state)
    reasons = [
        f"{name} is {value} in the weights, {getattr(config, name)} in the network"
        for name, value in form.items()
        if value != getattr(config, name)
    ]
    if missing:
        reasons.append(f"{len(missing)} missing ({_named(missing)})")
    if unknown:
        reasons.append(f"{len(unknown)} unexpected ({_named(unknown)})")
    if different:
        reasons.append(f"{len(different)} of another shape ({listed(different, _MAX_NAMED)})")
    raise StartMismatch(f"the weights do not fit the network: {'; '.join(reasons)}")


def _refuse_values(state: Mapping[str, Tensor]) -> None:
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            raise StartMismatch(f"{name} is {tensor.dtype}; weights are floating-point numbers")
        if tensor.itemsize < _FEWEST_BYTES:
            raise StartMismatch(f"{name} is {tensor.dtype}; give weights of 16 bits or more")
        if not tensor.is_meta and not bool(tensor.isfinite().all()):
            raise StartMismatch(f"{name} holds values that are not finite; give other weights")


def _fits(name: str, tensor: Tensor, ours: Tensor) -> bool:
    if name == "language.positions":
        return tensor.ndim == 2 and tensor.shape[1] == ours.shape[1] and len(tensor) <= len(ours)
    return tensor.shape == ours.shape


def _adapted(
    state: Mapping[str, Tensor], fitted: Mapping[str, Tensor], ours: Mapping[str, Tensor]
) -> Iterator[str]:
    name = "vision.positions"
    if name in state and state[name].shape != fitted[name].shape:
        old, new = (round((len(table[name]) - 1) ** 0.5) for table in (state, fitted))
        yield f"{name}: interpolated (bicubic) from {old} x {old} to {new} x {new} patches"
    name = "language.positions"
    if name in state and len(state[name]) > len(ours[name]):
        yield f"{name}: cut from {len(state[name])} to {len(ours[name])} rows"
    if name in state and (rows := len(state[name])) < len(ours[name]):
        yield f"{name}: {rows} rows are given, rows from {rows} keep initial values"


def _named(tensors: Mapping[str, Tensor]) -> str:
    return listed([f"{name} {shape_words(tensor)}" for name, tensor in tensors.items()], _MAX_NAMED)
