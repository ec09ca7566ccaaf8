"""What one micro-batch of a stream holds, as tensors: the only thing that reaches the network."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Final, Literal

import torch
from torch import Tensor

Stream = Literal["image", "text", "pair"]
STREAMS: Final[tuple[Stream, ...]] = ("image", "text", "pair")

Objective = Literal["mlm", "mim", "mvlm_text", "mvlm_image"]
OBJECTIVES: Final[tuple[Objective, ...]] = ("mlm", "mim", "mvlm_text", "mvlm_image")
"Words of texts, codes of images, and both for pairs (paper, section 2.2)."


@dataclass
class MicroBatch:
    """Samples of one stream. Parts that a stream does not have are None."""

    stream: Stream
    images: Tensor | None = None
    "(B, 3, H, W) float32, normalized."
    image_mask: Tensor | None = None
    "(B, N) bool, True = masked; no patch of a text-masked pair is."
    codes: Tensor | None = None
    "(B, N) long."
    text_ids: Tensor | None = None
    "(B, T) long, corrupted."
    text_padding: Tensor | None = None
    "(B, T) bool, True = padded; None where nothing is."
    text_documents: Tensor | None = None
    "(B, T) long, the document of each token; None where documents see each other."
    text_mask: Tensor | None = None
    "(B, T) bool, True = predict."
    text_targets: Tensor | None = None
    "(B, T) long, as they were."
    residual_scale: Tensor | None = None
    "(depth, 2, B) float32."

    @cached_property
    def image_places(self) -> Tensor | None:
        """(M,) long: where the flattened ``image_mask`` is True."""
        return None if self.image_mask is None else self.image_mask.flatten().nonzero()[:, 0]

    @cached_property
    def text_places(self) -> Tensor | None:
        """(M,) long: where the flattened ``text_mask`` is True."""
        return None if self.text_mask is None else self.text_mask.flatten().nonzero()[:, 0]

    def pinned(self) -> "MicroBatch":
        """Return the same in page-locked memory, from where a GPU copies without being awaited."""
        return self._each(Tensor.pin_memory)

    def to(self, device: torch.device) -> "MicroBatch":
        """Return the same on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "MicroBatch":
        changed = MicroBatch(self.stream)
        # Places are worked out before a move: a GPU would have to be awaited for their number.
        for name in (*(field.name for field in fields(self)), "image_places", "text_places"):
            value = getattr(self, name)
            if isinstance(value, Tensor):
                setattr(changed, name, change(value))
        return changed

    def counts(self) -> dict[Objective, int]:
        """Return how many predictions each objective makes."""
        text: Objective = "mlm" if self.stream == "text" else "mvlm_text"
        image: Objective = "mim" if self.stream == "image" else "mvlm_image"
        counts: dict[Objective, int] = {}
        if self.text_places is not None:
            counts[text] = len(self.text_places)
        if self.image_places is not None:
            counts[image] = len(self.image_places)
        return counts
