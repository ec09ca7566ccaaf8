"""Loading weights into a network of another resolution, or only some parts of it.

All names and shapes are compared before anything is loaded. The error of a mismatch lists every
name, each with the most similar name on the other side.
"""

import difflib
import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Part = Literal["vision", "language", "fusion", "shared", "mlm_head", "mim_head"]
ENCODER: Final[tuple[Part, ...]] = ("vision", "language", "fusion", "shared")
"Everything but the prediction heads: what a fine-tuned network has of this one."
PARTS: Final[tuple[Part, ...]] = (*ENCODER, "mlm_head", "mim_head")


_FINAL_NORM: Final = "norm."


class StateMismatch(ValueError):
    """The names or shapes of a state dict differ from the network's; the message lists all."""

    def __init__(self, problems: Mapping[str, Iterable[str]]) -> None:
        lines = ["the weights do not fit the network, nothing was loaded"]
        for title, entries in problems.items():
            if entries := list(entries):
                lines += [f"{title} ({len(entries)}):", *(f"  {entry}" for entry in entries)]
        super().__init__("\n".join(lines))


def part_of(name: str) -> Part:
    """Return the part of the network that a parameter belongs to."""
    fields = name.split(".")
    for part in PARTS:
        if part in fields:
            return part
    return "shared"


def load(network: nn.Module, state: Mapping[str, Tensor], parts: Iterable[Part] = PARTS) -> None:
    """Load the given parts; the others keep their values.

    An image encoder needs ``("vision", "shared")``; the state may omit every other part. Vision
    positions are interpolated to the network's grid; a longer text position table is truncated.

    Raises:
        StateMismatch: a name is missing or unknown, or a shape differs; nothing was loaded.
    """
    wanted = set(parts)
    ours = network.state_dict()
    fitted = {n: fit_positions(n, t, ours[n]) if n in ours else t for n, t in state.items()}
    check_names(fitted, ours, wanted)
    network.load_state_dict(
        {name: tensor for name, tensor in fitted.items() if part_of(name) in wanted}, strict=False
    )


def check_names(
    state: Mapping[str, Tensor], ours: Mapping[str, Tensor], wanted: Collection[Part]
) -> None:
    """Raise :class:`StateMismatch` unless ``state`` has the wanted parts of ``ours``, no more."""
    unknown = [name for name in state if name not in ours]
    missing = [name for name in ours if name not in state and part_of(name) in wanted]
    different = [
        f"{name}: {shape_words(tensor)} given, {shape_words(ours[name])} in the network"
        for name, tensor in state.items()
        if name in ours and part_of(name) in wanted and tensor.shape != ours[name].shape
    ]
    if missing or unknown or different:
        raise StateMismatch(
            {
                "missing": with_nearest(_not_of_norm(missing), unknown),
                "missing; weights without a final norm need a network with final_norm=False": [
                    name for name in missing if name.startswith(_FINAL_NORM)
                ],
                "unknown to the network": with_nearest(_not_of_norm(unknown), missing),
                "unknown to the network; weights with a final norm need final_norm=True": [
                    name for name in unknown if name.startswith(_FINAL_NORM)
                ],
                "of another shape": different,
            }
        )


def check_depth(state: Mapping[str, Tensor], depth: int, prefix: str = "") -> None:
    """Raise ValueError unless weights have as many blocks as a configuration says.

    A network of a wrong depth need not be built for the comparison of all names.

    Args:
        state: names with a prefix are compared.
        depth: number of blocks of the configuration.
        prefix: of the network's names.
    """
    blocks = {
        name.removeprefix(f"{prefix}blocks.").partition(".")[0]
        for name in state
        if name.startswith(f"{prefix}blocks.")
    }
    if depth > len(blocks):
        raise ValueError(
            f"the weights do not fit the network: blocks {len(blocks)} to {depth - 1} are missing"
        )


def _not_of_norm(names: list[str]) -> list[str]:
    return [name for name in names if not name.startswith(_FINAL_NORM)]


def interpolate_positions(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resize a vision position table (1 + N, D) bicubically from its square grid to another grid.

    The first row, the class token's, is kept, as in the authors' fine-tuning. A table of the same
    grid is returned as it is.
    """
    width = positions.shape[1]
    old = math.isqrt(positions.shape[0] - 1)
    if grid == (old, old):
        return positions
    table = positions[1:].float().reshape(1, old, old, width).permute(0, 3, 1, 2)
    table = F.interpolate(table, size=grid, mode="bicubic", align_corners=False)
    patches = table.permute(0, 2, 3, 1).reshape(-1, width)
    return torch.cat([positions[:1], patches.to(positions.dtype)])


def with_nearest(names: Iterable[str], candidates: Iterable[str]) -> list[str]:
    """Return each name, followed by the most similar candidate if there is one.

    Only candidates of the same layer and kind are compared: comparing thousands of names with each
    other would take minutes.
    """
    alike: dict[tuple[str, ...], list[str]] = {}
    for candidate in candidates:
        alike.setdefault(_layer_and_kind(candidate), []).append(candidate)
    lines = []
    for name in names:
        near = difflib.get_close_matches(name, alike.get(_layer_and_kind(name), []), 1, cutoff=0.5)
        lines.append(f"{name} (nearest: {near[0]})" if near else name)
    return lines


def _layer_and_kind(name: str) -> tuple[str, ...]:
    return (*re.findall(r"\.(\d+)\.", name), name.rpartition(".")[2])


def fit_positions(name: str, tensor: Tensor, ours: Tensor) -> Tensor:
    """Return a position table in the size of the network's, ``ours``, where that is possible."""
    if tensor.ndim != 2 or tensor.shape[1:] != ours.shape[1:]:
        return tensor
    if name == "vision.positions" and tensor.shape != ours.shape:
        old, new = (math.isqrt(max(len(table) - 1, 0)) for table in (tensor, ours))
        is_square = old > 0 and old**2 == len(tensor) - 1
        return interpolate_positions(tensor, (new, new)) if is_square else tensor
    if name == "language.positions":
        return tensor[: ours.shape[0]]
    return tensor


def shape_words(tensor: Tensor) -> str:
    """Return a tensor's shape as in ``64x96``."""
    return "x".join(map(str, tensor.shape)) or "scalar"
