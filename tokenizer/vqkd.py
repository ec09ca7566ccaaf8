"""VQ-KD, the image tokenizer of BEiT v2: codes from which a teacher's features can be told.

An encoder turns patches into short vectors, a quantiser turns those into codes, a shallow decoder
predicts from the codes what a frozen teacher sees at each patch. Only the encoder and the codebook
are used afterwards. Names follow the layout of the published tokenizers.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenizer.quantiser import Quantiser
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
        self.quantize = Quantiser(
            config.num_codes, config.code_dim, config.decay, config.revive_below
        )
        self.encode_task_layer = nn.Sequential(
            nn.Linear(width, width), nn.Tanh(), nn.Linear(width, config.code_dim)
        )
        self.decode_task_layer = nn.Sequential(
            nn.Linear(width, width), nn.Tanh(), nn.Linear(width, config.teacher_dim)
        )

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] → (B, N, code_dim), before quantisation."""
        return self.encode_task_layer(self.encoder(images))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] → codes (B, N) long."""
        return self.quantize.assign(self.features(images).float())

    def forward(self, images: Tensor, target: Tensor, generator: torch.Generator) -> Distilled:
        """Distil one batch.

        Args:
            images: (B, 3, H, W) in [-1, 1].
            target: (B, N, teacher_dim), the teacher's features.
            generator: the same on every worker; see :class:`Quantiser`.
        """
        quantised, codes, commitment = self.quantize(self.features(images), generator)
        grid = self.config.grid
        square = quantised.transpose(1, 2).reshape(len(images), -1, grid, grid)
        predicted = self.decode_task_layer(self.decoder(square))
        cosine = F.cosine_similarity(predicted.float(), target.float(), dim=-1).mean()
        return Distilled(1 - cosine + commitment, cosine, codes)

    def save(self, path: str | Path) -> None:
        """Write weights and configuration to one file."""
        torch.save({"config": asdict(self.config), "model": self.state_dict()}, path)

    @classmethod
    def load(cls, path: str | Path) -> "VQKD":
        """Read what :meth:`save` wrote; ready to encode."""
        saved: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        tokenizer = cls(VQKDConfig(**saved["config"]))
        tokenizer.load_state_dict(saved["model"])
        return tokenizer.eval()
