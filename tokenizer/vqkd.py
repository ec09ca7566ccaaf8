"""VQ-KD, the image tokenizer of BEiT v2 (arXiv:2208.06366, section 2.2).

An encoder maps each patch to a short vector, a quantizer maps the vector to a code, and a shallow
decoder predicts the features of a frozen teacher from the codes. Tokenizing uses the encoder and
the codebook alone. Files have the layout of the published tokenizers, plus the configuration.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tokenizer.beit_v2 import from_beit_v2, sizes, to_beit_v2
from tokenizer.quantizer import Quantizer
from tokenizer.vit import VisionTransformer, interpolate_positions
from tokenizer.weight_files import UnreadableWeights, read_saved, unwrapped

_SIZES: Final = (
    "image_size", "patch_size", "width", "depth", "num_heads", "decoder_depth", "num_codes",
    "code_dim", "teacher_dim",
)  # fmt: skip
"Fields of the configuration that count or measure something there must be."


@dataclass(frozen=True)
class VQKDConfig:
    """Sizes of the tokenizer, and how its codebook is trained."""

    image_size: int = 224
    "Pixels along each side of an image."
    patch_size: int = 16
    "Pixels along each side of a patch."
    width: int = 768
    "D, width of encoder and decoder."
    depth: int = 12
    "Blocks of the encoder."
    num_heads: int = 12
    "H, attention heads of encoder and decoder."
    decoder_depth: int = 3
    "Blocks of the decoder."
    num_codes: int = 8192
    "K, entries of the codebook."
    code_dim: int = 32
    "Dimensions of a codebook entry."
    teacher_dim: int = 512
    "Dimensions of the teacher's features."
    ema_decay: float = 0.99
    "Decay per step of the codebook's moving averages."
    dead_code_threshold: float = 0.01
    "Fraction of an even share of the features below which a code is replaced; 0 replaces none."
    kmeans: bool = True
    "Whether k-means over the first batch initializes the codebook; otherwise it is random."

    def __post_init__(self) -> None:
        for name in _SIZES:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if self.width % self.num_heads:
            raise ValueError(
                f"width {self.width} is not a multiple of num_heads {self.num_heads}; "
                "change one of them"
            )

    @property
    def grid(self) -> int:
        """Return the number of patches along one side of an image."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class Distilled:
    """The result of a training forward."""

    loss: Tensor
    "Scalar: 1 - cosine + commitment loss."
    cosine: Tensor
    "Scalar: mean cosine similarity to the teacher's features."
    codes: Tensor
    "(B, N) long."


class VQKD(nn.Module):
    """The image tokenizer: encoder, quantizer and the decoder of its training."""

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
            num_heads=config.num_heads,
        )
        self.decoder = VisionTransformer(
            channels=config.code_dim,
            grid=config.grid,
            patch=1,
            width=width,
            depth=config.decoder_depth,
            num_heads=config.num_heads,
        )
        self.quantize = Quantizer(
            config.num_codes,
            config.code_dim,
            config.ema_decay,
            config.dead_code_threshold,
            config.kmeans,
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
        """Return features before quantization: (B, 3, H, W) in [-1, 1] → (B, N, code_dim) fp32."""
        encoded = self.encoder(images)
        with torch.autocast(images.device.type, enabled=False):
            return self.encode_task_layer(encoded.to(self.encode_task_layer[0].weight.dtype))

    @torch.no_grad()
    def initialize_codebook(self, batches: Iterable[Tensor], generator: torch.Generator) -> None:
        """Start the codebook by k-means over the features of several batches of images.

        Args:
            batches: images of this worker, each (B, 3, H, W) in [-1, 1].
            generator: random numbers, the same on every worker.
        """
        with torch.autocast(self.quantize.embedding.weight.device.type, enabled=False):
            self.quantize.initialize(map(self.features, batches), generator)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Return the codes of images: (B, 3, H, W) in [-1, 1] → (B, N) long, below K."""
        with torch.autocast(images.device.type, enabled=False):
            return self.quantize.assign(self.features(images))

    def forward(self, images: Tensor, target: Tensor, generator: torch.Generator) -> Distilled:
        """Compute the distillation loss of one batch and, in training, update the codebook.

        Args:
            images: (B, 3, H, W) in [-1, 1].
            target: (B, N, teacher_dim), the teacher's features.
            generator: random numbers, the same on every worker; see :class:`Quantizer`.
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
    def load(
        cls, path: str | Path, num_heads: int | None = None, grid: int | None = None
    ) -> "VQKD":
        """Load a file of :meth:`save` or a tokenizer published by BEiT v2, in evaluation mode.

        Args:
            path: torch or safetensors file.
            num_heads: attention heads of a file without configuration; None infers them from the
                width and logs a warning.
            grid: patches along one side of an image; position tables of another grid are
                interpolated. None keeps the file's.

        Raises:
            FileNotFoundError: the path is not a file.
            ValueError: the file cannot be read, or is no tokenizer.
        """
        saved = read_saved(path)
        try:
            state = from_beit_v2(unwrapped(saved))
            config = _config_in(saved) or VQKDConfig(**sizes(state, num_heads))
            if grid is not None and grid != config.grid:
                config = replace(config, image_size=grid * config.patch_size)
                state |= {
                    name: interpolate_positions(state[name], grid)
                    for name in ("encoder.pos_embed", "decoder.pos_embed")
                }
            tokenizer = cls(config)
            tokenizer.load_state_dict(state)
            _require_finite(tokenizer.state_dict())
        except (ValueError, RuntimeError) as error:
            raise UnreadableWeights(f"{path}: not a VQ-KD tokenizer: {error}") from None
        return tokenizer.eval()


def _require_finite(state: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless all weights are finite numbers; codes of others mean nothing."""
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} holds values that are not finite")


def _config_in(saved: Any) -> VQKDConfig | None:
    """Return the configuration that :meth:`VQKD.save` wrote, or None in another program's file."""
    config = saved.get("config") if isinstance(saved, Mapping) else None
    names = {field.name for field in fields(VQKDConfig)}
    if not isinstance(config, Mapping) or not config.keys() or not config.keys() <= names:
        return None
    return VQKDConfig(**config)


def to_input(pixels: NDArray[np.uint8] | Tensor) -> Tensor:
    """Return the tokenizer's input: RGB pixels (B, H, W, 3) uint8 → (B, 3, H, W) in [-1, 1]."""
    return torch.as_tensor(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
