"""What one micro-batch of a stream holds, as tensors: the only thing that reaches the network."""

from dataclasses import dataclass, fields
from typing import Final, Literal

import torch
from torch import Tensor

Stream = Literal["image", "text", "pair"]
STREAMS: Final[tuple[Stream, ...]] = ("image", "text", "pair")

Objective = Literal["mlm", "mim", "mvlm_text", "mvlm_image"]
OBJECTIVES: Final[tuple[Objective, ...]] = ("mlm", "mim", "mvlm_text", "mvlm_image")
"Words of texts, codes of pictures, and both for pairs (paper, section 2.2)."


@dataclass
class MicroBatch:
    """Samples of one stream. Parts that a stream does not have are None."""

    stream: Stream
    images: Tensor | None = None
    "(B, 3, H, W) float32, normalised."
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

    def to(self, device: torch.device) -> "MicroBatch":
        """Return the same on another device."""
        moved = MicroBatch(self.stream)
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                setattr(moved, field.name, value.to(device, non_blocking=True))
        return moved

    def counts(self) -> dict[Objective, int]:
        """Return how many predictions each objective makes."""
        text: Objective = "mlm" if self.stream == "text" else "mvlm_text"
        image: Objective = "mim" if self.stream == "image" else "mvlm_image"
        counts: dict[Objective, int] = {}
        if self.text_mask is not None:
            counts[text] = int(self.text_mask.sum())
        if self.image_mask is not None:
            counts[image] = int(self.image_mask.sum())
        return counts
