"""The tensors of one micro-batch: everything that reaches the network and its losses."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Final, Literal

import torch
from torch import Tensor

from model.training.color_jitter import jitter_colors

Stream = Literal["image", "text", "pair"]
STREAMS: Final[tuple[Stream, ...]] = ("image", "text", "pair")
_SAMPLE_AXIS: Final = {"residual_scale": 2, "pixel_mean": None, "pixel_std": None}
"Axis of the samples in a tensor; the first in all others."


@dataclass
class MicroBatch:
    """Samples of one stream. A tensor that the stream does not have is None."""

    stream: Stream
    pixels: Tensor | None = None
    "(B, H, W, 3) uint8 RGB, of which :meth:`to` makes ``images``: a quarter of their bytes."
    pixel_mean: Tensor | None = None
    "(3,) float32, subtracted from ``pixels`` in 0-1."
    pixel_std: Tensor | None = None
    "(3,) float32, by which the difference is divided."
    jitter_operations: Tensor | None = None
    "(B, 3) long, operations of the color jitter in their order; None if ``pixels`` stay as is."
    jitter_factors: Tensor | None = None
    "(B, 3) float32, the factor of each of these operations."
    images: Tensor | None = None
    "(B, 3, H, W) float32, normalized."
    image_mask: Tensor | None = None
    "(B, N) bool, True = masked; all False for a text-masked pair."
    codes: Tensor | None = None
    "(B, N) long, the image tokenizer's code of each patch."
    tokenizer_pixels: Tensor | None = None
    "(B, H', W', 3) uint8 RGB, of which the tokenizer computes ``codes`` within the step."
    text_ids: Tensor | None = None
    "(B, T) long, the token ids after masking: the network's input."
    text_padding: Tensor | None = None
    "(B, T) bool, True = padded; None if no text is padded."
    text_documents: Tensor | None = None
    "(B, T) long, the document of each token; None if attention crosses documents."
    text_mask: Tensor | None = None
    "(B, T) bool, True = to be predicted."
    text_targets: Tensor | None = None
    "(B, T) long, the token ids before masking."
    residual_scale: Tensor | None = None
    "(depth, 2, B) float32, factors of the residual branches; None without stochastic depth."

    @property
    def num_samples(self) -> int:
        """Return B."""
        samples = self.image_mask if self.text_ids is None else self.text_ids
        assert samples is not None
        return len(samples)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of the fields that the batch has, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def rows(self, index: Tensor) -> "MicroBatch":
        """Return a copy with the samples of an index (B',) alone, in host memory."""
        taken = MicroBatch(self.stream)
        for name, value in self.tensors().items():
            axis = _SAMPLE_AXIS.get(name, 0)
            setattr(
                taken, name, value.cpu() if axis is None else value.cpu().index_select(axis, index)
            )
        return taken

    @property
    def has_codes(self) -> bool:
        """Whether masked patches are predicted by their codes; if not, by their pixels."""
        return self.codes is not None or self.tokenizer_pixels is not None

    @cached_property
    def masked_image_positions(self) -> Tensor | None:
        """(M,) long: the indices at which the flattened ``image_mask`` is True."""
        return None if self.image_mask is None else self.image_mask.flatten().nonzero()[:, 0]

    @cached_property
    def masked_text_positions(self) -> Tensor | None:
        """(M,) long: the indices at which the flattened ``text_mask`` is True."""
        return None if self.text_mask is None else self.text_mask.flatten().nonzero()[:, 0]

    def pinned(self) -> "MicroBatch":
        """Return a copy in page-locked memory, from which copies to a GPU are asynchronous."""
        return self._each(Tensor.pin_memory)

    def to(self, device: torch.device) -> "MicroBatch":
        """Return a copy on another device, with jittered ``images`` instead of ``pixels``."""
        moved = self._each(lambda tensor: tensor.to(device, non_blocking=True))
        if moved.pixels is not None:
            assert moved.pixel_mean is not None and moved.pixel_std is not None
            if moved.jitter_operations is not None and moved.jitter_factors is not None:
                draws = moved.jitter_operations, moved.jitter_factors
                moved.pixels = jitter_colors(moved.pixels, *draws)
                moved.jitter_operations = moved.jitter_factors = None
            images = moved.pixels.permute(0, 3, 1, 2).to(torch.float32, copy=True).contiguous()
            mean, std = moved.pixel_mean.view(3, 1, 1), moved.pixel_std.view(3, 1, 1)
            moved.images, moved.pixels = images.div_(255).sub_(mean).div_(std), None
        return moved

    def _each(self, change: Callable[[Tensor], Tensor]) -> "MicroBatch":
        changed = MicroBatch(self.stream)
        # The positions are computed before a move: on a GPU, nonzero() waits for their number.
        positions = ("masked_image_positions", "masked_text_positions")
        for name in (*(field.name for field in fields(self)), *positions):
            value = getattr(self, name)
            if isinstance(value, Tensor):
                setattr(changed, name, change(value))
        return changed
