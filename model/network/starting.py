"""Starting a network from given weights: ours or released ones, at any resolution, with any heads.

The weights must be those of a network of the same form. Only what a resolution, a text length or
a task changes may differ: position tables are fitted to the network's, heads that the weights do
not have keep their initial values, heads of other tasks are left out. What belongs to another
vocabulary or codebook is left out by the caller's explicit choice alone. A report names all of it.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor

from model.network.beit3 import BEiT3
from model.network.config import BEiT3Config
from model.network.layouts import (
    MAX_NAMED,
    FormMismatch,
    form_of,
    in_our_layout,
    listed,
    named,
    refuse_values,
)
from model.network.loading import Part, fit_positions, part_of, shape_words

Fresh = Literal["vocabulary", "codebook"]
FRESH: Final[Mapping[Fresh, tuple[str, ...]]] = {
    "vocabulary": ("language.tokens.", "mlm_head."),
    "codebook": ("mim_head.",),
}
"What of a network belongs to its text vocabulary, and what to its image tokenizer's codebook."
_MAY_BE_ABSENT: Final = ("mlm_head.", "mim_head.", "norm.")
"Networks of other tasks have no prediction heads, and some of them no final norm."


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
    saved: Mapping[str, object],
    config: BEiT3Config,
    fresh: Collection[Fresh] = (),
    *,
    without: Collection[Part] = (),
) -> tuple[dict[str, Tensor], StartReport]:
    """Return the fp32 parameters that a network of ``config`` takes from weights, and a report.

    The text position table may have fewer rows than the network's, whose last rows are then fresh.

    Args:
        saved: weights in this project's or the official layout, or what their file holds; tensors
            on the device ``meta`` are compared by name and shape.
        config: of the network.
        fresh: tokenizers whose rows and heads are left out.
        without: parts of the network that the weights need not have.

    Raises:
        StartMismatch: a name is missing or unknown, a shape differs, or a value is not finite.
        ValueError: ``saved`` holds no tensors.
    """
    layout, state, unused = in_our_layout(saved)
    anew = tuple(prefix for choice in fresh for prefix in FRESH[choice])
    left_out = [name for name in state if name.startswith(anew)] if anew else []
    state = {name: tensor for name, tensor in state.items() if name not in left_out}
    with torch.device("meta"):
        ours = BEiT3(config).state_dict()
    refuse_values(state)
    fitted = {n: fit_positions(n, t, ours[n]) if n in ours else t for n, t in state.items()}
    _refuse(fitted, ours, config, (*_MAY_BE_ABSENT, *anew), without)
    adapted = list(_adapted(state, fitted, ours))
    absent = [name for name in ours if name not in fitted]
    report = StartReport(
        layout, tuple(fitted), tuple(absent), tuple(left_out + unused), tuple(adapted)
    )
    return {name: tensor.float() for name, tensor in fitted.items()}, report


def _refuse(
    state: Mapping[str, Tensor],
    ours: Mapping[str, Tensor],
    config: BEiT3Config,
    may_be_absent: tuple[str, ...],
    without: Collection[Part],
) -> None:
    missing = {
        name: tensor
        for name, tensor in ours.items()
        if name not in state and not name.startswith(may_be_absent) and part_of(name) not in without
    }
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
        reasons.append(f"{len(missing)} missing ({named(missing)})")
    if unknown:
        reasons.append(f"{len(unknown)} unexpected ({named(unknown)})")
    if different:
        reasons.append(f"{len(different)} of another shape ({listed(different, MAX_NAMED)})")
    raise FormMismatch(f"the weights do not fit the network: {'; '.join(reasons)}")


def _fits(name: str, tensor: Tensor, ours: Tensor) -> bool:
    if name == "language.positions":
        is_table = tensor.ndim == 2 and tensor.shape[1] == ours.shape[1]
        return is_table and 0 < len(tensor) <= len(ours)
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
