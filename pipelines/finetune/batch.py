"""The tensors of some examples of a task."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.finetuning.detection.targets import Targets
from model.finetuning.mixing import Mix

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class TaskBatch:
    """B examples, each with I images and at most one text. What a task does not have is None."""

    rows: Ints
    "(B,), row number of each example in its split."
    pixels: Tensor | None = None
    "(B, I, H, W, 3) uint8 RGB, of which :meth:`to` makes ``images``."
    pixel_mean: Tensor | None = None
    "(3,) float32, subtracted from ``pixels`` in 0-1."
    pixel_std: Tensor | None = None
    "(3,) float32, by which the difference is divided."
    images: Tensor | None = None
    "(B, I, 3, H, W) float32, normalized."
    text_ids: Tensor | None = None
    "(B, T) long."
    text_padding: Tensor | None = None
    "(B, T) bool, True = padded."
    text_counts: Tensor | None = None
    "(B,) long, number of texts of each example if all of its texts are given, one after another."
    targets: Tensor | None = None
    "What the task predicts; its shape and type are the task's choice."
    objects: Targets | None = None
    "Annotated objects of the images."
    seen: Sequence[tuple[int, int]] = ()
    "(B,) height and width of each image in ``pixels`` without padding."
    annotated: Sequence[tuple[int, int]] = ()
    "(B,) height and width of each image to which predicted boxes and masks refer."
    seeds: Sequence[int] = ()
    "(B,) seed of what a loss draws for an example."
    text_mask: Tensor | None = None
    "(B, T) bool, True = the token is masked and predicted; ``targets`` has what it was."
    slots: Tensor | None = None
    "(B,) long, places of the examples in the global batch of a training."
    step: int = 0
    "Number of the training's step."
    mixes: Sequence[Mix] = ()
    "How the images are mixed with each other, in groups; empty if they are not."
    residual_scale: Tensor | None = None
    "(depth, 2, passes, B) float32, factors of the residual branches in each pass of the encoder."

    def __len__(self) -> int:
        """Return B."""
        return len(self.rows)

    def scale(self, number: int) -> Tensor | None:
        """Return the factors (depth, 2, B) of one pass of the encoder."""
        return None if self.residual_scale is None else self.residual_scale[:, :, number]

    def pinned(self) -> "TaskBatch":
        """Return a copy in page-locked memory, from which copies to a GPU are asynchronous."""
        return self._each(Tensor.pin_memory)

    def to(self, device: torch.device) -> "TaskBatch":
        """Return a copy on a device, with ``images`` instead of ``pixels``."""
        moved = self._each(lambda tensor: tensor.to(device, non_blocking=True))
        if moved.pixels is None:
            return moved
        assert moved.pixel_mean is not None and moved.pixel_std is not None
        images = moved.pixels.permute(0, 1, 4, 2, 3).to(torch.float32, copy=True).contiguous()
        mean, std = moved.pixel_mean.view(3, 1, 1), moved.pixel_std.view(3, 1, 1)
        return replace(moved, images=images.div_(255).sub_(mean).div_(std), pixels=None)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "TaskBatch":
        changed: dict[str, Any] = {
            field.name: change(value)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        objects = None if self.objects is None else self.objects.each(change)
        return replace(self, objects=objects, **changed)
