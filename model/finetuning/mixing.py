"""Mixup and CutMix of images and their labels, with label smoothing, as timm's Mixup in batch mode.

The images of a group are mixed with those of the same group in reverse order, all with one weight:
mixup adds the two images, CutMix copies a box. timm's group is the batch of a device; here it is a
fixed number of consecutive slots of the global batch, and its draw is a pure function of (seed,
step, group), so that images are mixed the same however many devices train.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.training import randomness

_SWITCH: Final = 0.5
"Fraction of groups that CutMix mixes, where mixup is on too."


@dataclass(frozen=True)
class Mix:
    """How the images of a group are mixed."""

    weight: float
    "Weight of an image's own label; its partner's label has the rest."
    box: tuple[int, int, int, int] | None = None
    "Top, bottom, left and right of the box that CutMix copies; None for mixup."


@dataclass(frozen=True)
class Mixing:
    """Which mixes are drawn."""

    mixup: float
    "Both parameters of the beta distribution of mixup's weight; 0 turns mixup off."
    cutmix: float
    "Both parameters of the beta distribution of CutMix's weight; 0 turns CutMix off."
    group_size: int
    "Consecutive slots that are mixed with each other, by one draw."

    def draw(self, size: int, seed: int, step: int, slots: NDArray[np.int64]) -> list[Mix]:
        """Return the mix of each group of a micro-batch.

        Args:
            size: side of the images in pixels.
            seed: of the draws.
            step: of the training.
            slots: (B,) slots that the micro-batch fills.

        Raises:
            ValueError: the slots are not whole groups.
        """
        groups = slots[:: self.group_size] // self.group_size
        whole = groups[:, None] * self.group_size + np.arange(self.group_size)
        if not np.array_equal(whole.ravel(), slots):
            raise ValueError(
                f"images are mixed in groups of {self.group_size} consecutive slots, but a "
                f"micro-batch has the slots {_listed(slots)}: let the groups' size divide the "
                "micro-batch"
            )
        return [self._drawn(size, randomness.generator(seed, step, int(each))) for each in groups]

    def _drawn(self, size: int, rng: np.random.Generator) -> Mix:
        if not (self.mixup or self.cutmix):
            return Mix(1.0)
        is_cut = self.cutmix > 0 and (self.mixup == 0 or rng.random() < _SWITCH)
        alpha = self.cutmix if is_cut else self.mixup
        weight = float(rng.beta(alpha, alpha))
        if not is_cut:
            return Mix(weight)
        return cut_mix(size, weight, (int(rng.integers(size)), int(rng.integers(size))))


def cut_mix(size: int, weight: float, center: tuple[int, int]) -> Mix:
    """Return the mix that copies a square box, which the border may cut off.

    Args:
        size: side of the images in pixels.
        weight: fraction of the area that is not copied if the border cuts nothing off.
        center: row and column of the box's middle.
    """
    side = int(size * math.sqrt(1 - weight))
    top, left = (min(max(middle - side // 2, 0), size) for middle in center)
    bottom, right = (min(max(middle + (side + 1) // 2, 0), size) for middle in center)
    copied = (bottom - top) * (right - left)
    return Mix(1 - copied / (size * size), (top, bottom, left, right))


def mix_images(images: Tensor, mixes: Sequence[Mix]) -> Tensor:
    """Return mixed images.

    Args:
        images: (B, ..., H, W) float, groups of equal size one after the other.
        mixes: of the groups.
    """
    height, width = images.shape[-2:]
    boxes = torch.tensor([mix.box or (0, 0, 0, 0) for mix in mixes], device=images.device)
    outside = [mix.weight if mix.box is None else 1.0 for mix in mixes]
    top, bottom, left, right = boxes.T[:, :, None]
    rows = torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    in_rows, in_columns = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
    in_box = in_rows[:, :, None] & in_columns[:, None, :]
    own = torch.tensor(outside, dtype=images.dtype, device=images.device)[:, None, None]
    own = own.masked_fill(in_box, 0)
    grouped = images.unflatten(0, (len(mixes), -1))
    own = own.view(len(mixes), *(1,) * (grouped.ndim - 3), height, width)
    return (grouped * own + grouped.flip(1) * (1 - own)).flatten(0, 1)


def mix_targets(
    classes: Tensor, num_classes: int, mixes: Sequence[Mix], label_smoothing: float
) -> Tensor:
    """Return the probability that a network should give to each class, (B, C) float32.

    Args:
        classes: (B,) long, of the images.
        num_classes: C.
        mixes: of the groups of images.
        label_smoothing: probability that is spread evenly over all classes.
    """
    rest = label_smoothing / num_classes
    smooth = torch.full((len(classes), num_classes), rest, device=classes.device)
    smooth.scatter_(1, classes[:, None], 1 - label_smoothing + rest)
    grouped = smooth.unflatten(0, (len(mixes), -1))
    own = torch.tensor([mix.weight for mix in mixes], device=classes.device)[:, None, None]
    return (grouped * own + grouped.flip(1) * (1 - own)).flatten(0, 1)


def _listed(slots: NDArray[np.int64]) -> str:
    shown = ", ".join(map(str, slots[:6].tolist()))
    return f"{shown}, …" if len(slots) > 6 else shown
