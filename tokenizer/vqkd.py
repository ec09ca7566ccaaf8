"""VQ-KD, the image tokenizer of BEiT v2: codes from which a teacher's features can be told.

An encoder turns patches into short vectors, a quantizer turns those into codes, a shallow decoder
predicts from the codes what a frozen teacher sees at each patch. Only the encoder and the codebook
are used afterwards. Files have the layout of the published tokenizers and say their sizes.
"""

import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tokenizer.beit_v2 import from_beit_v2, sizes, to_beit_v2, weights_of
from tokenizer.quantizer import Quantizer
from tokenizer.vit import VisionTransformer


@dataclass(frozen=True)
class VQKDConfig:
    """Sizes of the tokenizer."""

    image_size: int = 224
    patch_size: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    decoder_depth: int = 3
    num_codes: int = 8192
    code_dim: int = 32
    teacher_dim: int = 512
    decay: float = 0.99
    revive_below: float = 0.01
    kmeans: bool = True

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class Distilled:
    """What a training forward gives."""

    loss: Tensor
    cosine: Tensor
    "Mean cosine to the teacher's features."
    codes: Tensor
    "(B, N) long."


class VQKD(nn.Module):
    """The tokenizer."""

    def __init__(self, config: VQKDConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.encoder = VisionTransformer(
            channels=3,
            grid=config.grid,
            patch=config.patch_size,
            width=width,
            depth=config.depth,
            heads=config.heads,
        )
        self.decoder = VisionTransformer(
            channels=config.code_dim,
            grid=config.grid,
            patch=1,
            width=width,
            depth=config.decoder_depth,
            heads=config.heads,
        )
        self.quantize = Quantizer(
            config.num_codes, config.code_dim, config.decay, config.revive_below, config.kmeans
        )
        self.encode_task_layer = nn.Sequential(
            nn.Linear(width, width), nn.Tanh(), nn.Linear(width, config.code_dim)
        )
        self.decode_task_layer = nn.Sequential(
            nn.Linear(width, width), nn.Tanh(), nn.Linear(width, config.teacher_dim)
        )
        for layer in (*self.encode_task_layer, *self.decode_task_layer):
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] → (B, N, code_dim), before quantization; always fp32."""
        encoded = self.encoder(images)
        with torch.autocast(images.device.type, enabled=False):
            return self.encode_task_layer(encoded.to(self.encode_task_layer[0].weight.dtype))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] → codes (B, N) long."""
        with torch.autocast(images.device.type, enabled=False):
            return self.quantize.assign(self.features(images))

    def forward(self, images: Tensor, target: Tensor, generator: torch.Generator) -> Distilled:
        """Distil one batch.

        Args:
            images: (B, 3, H, W) in [-1, 1].
            target: (B, N, teacher_dim), the teacher's features.
            generator: the same on every worker; see :class:`Quantizer`.
        """
        features = self.features(images)
        with torch.autocast(images.device.type, enabled=False):  # a codebook in bf16 would drift
            quantized, codes, commitment = self.quantize(features, generator)
        grid = self.config.grid
        square = quantized.transpose(1, 2).reshape(len(images), -1, grid, grid)
        predicted = self.decode_task_layer(self.decoder(square))
        cosine = F.cosine_similarity(predicted.float(), target.float(), dim=-1).mean()
        return Distilled(1 - cosine + commitment, cosine, codes)

    def save(self, path: str | Path) -> None:
        """Write weights and configuration to one file, in the layout of BEiT v2."""
        torch.save({"config": asdict(self.config), "model": to_beit_v2(self.state_dict())}, path)

    @classmethod
    def load(cls, path: str | Path) -> "VQKD":
        """Read what :meth:`save` wrote, or a tokenizer that BEiT v2 published; ready to encode.

        Raises:
            ValueError: it is neither.
        """
        try:
            saved: Any = torch.load(path, map_location="cpu", weights_only=True)
            state = from_beit_v2(weights_of(saved))
            config = saved["config"] if "config" in saved else sizes(state)
            tokenizer = cls(VQKDConfig(**config))
            tokenizer.load_state_dict(state)
        except (pickle.UnpicklingError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{path}: not a VQ-KD tokenizer: {error}") from None
        return tokenizer.eval()


def to_input(pixels: NDArray[np.uint8]) -> Tensor:
    """(B, H, W, 3) RGB → (B, 3, H, W) in [-1, 1], as the tokenizer takes images."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
