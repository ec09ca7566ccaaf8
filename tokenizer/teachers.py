"""Teachers of VQ-KD: frozen networks that map images to one feature per patch.

``clip`` is the paper's teacher: patch tokens after the projection of OpenAI's ViT-B/16, whose
activation is QuickGELU. ``dino`` is BEiT v2's other one. Both are networks of timm.
``hand_crafted`` needs no weights: it computes histograms of oriented gradients and mean colors of
each patch, for tests and for machines without the weights.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenizer.weight_files import UnreadableWeights, read_weights

TeacherName = Literal["hand_crafted", "clip", "dino"]


@dataclass(frozen=True)
class _TimmSource:
    name: str
    patch: int
    dim: int
    num_classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


_TIMM: Final = {
    "clip": _TimmSource(
        "vit_base_patch16_clip_quickgelu_224.openai",
        patch=16,
        dim=512,
        num_classes=512,
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
    ),
    "dino": _TimmSource(
        "vit_base_patch16_224.dino",
        patch=16,
        dim=768,
        num_classes=0,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    ),
}
_HUB_TIMEOUT_S: Final = 10

_ORIENTATIONS: Final = 8
_CELLS: Final = 2
_COLOR_WEIGHT: Final = 1.5


def make_teacher(name: TeacherName, grid: int, weights: Path | None) -> nn.Module:
    """Return a frozen teacher; its forward maps (B, 3, H, W) in [-1, 1] to (B, N, ``dim``).

    Args:
        name: name of the teacher.
        grid: patches along one side of an image; N = grid².
        weights: local file of weights in the layout of timm or of the teacher's authors; None
            takes timm's from the Hugging Face hub.

    Raises:
        FileNotFoundError: ``weights`` is not a file.
        UnreadableWeights: ``weights`` cannot be read, or holds another network.
    """
    if weights is not None and not weights.is_file():
        raise FileNotFoundError(f"weights of the teacher {name}: {weights} is not a file")
    teacher = (
        HandCrafted(grid) if name == "hand_crafted" else TimmTeacher(_TIMM[name], grid, weights)
    )
    return teacher.eval().requires_grad_(False)


def unreachable(name: TeacherName) -> str | None:
    """Return why a teacher's weights cannot be fetched from the hub; None if they can.

    A teacher that is not timm's needs nothing from the hub.
    """
    if name not in _TIMM:
        return None
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from timm.models import get_pretrained_cfg

    config, file = get_pretrained_cfg(_TIMM[name].name), "model.safetensors"
    assert config is not None and config.hf_hub_id
    repository = config.hf_hub_id
    if isinstance(try_to_load_from_cache(repository, file), str):
        return None
    try:
        get_hf_file_metadata(hf_hub_url(repository, file), timeout=_HUB_TIMEOUT_S)
    except Exception as error:  # its type (offline, not found, refused) differs by client version
        return f"{repository} on the Hugging Face hub: {error}"
    return None


class HandCrafted(nn.Module):
    """Histograms of gradient orientations, and mean colors, of the cells of each patch."""

    dim: Final = _CELLS**2 * (_ORIENTATIONS + 3)

    def __init__(self, grid: int) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] → (B, N, dim)."""
        gray = images.mean(1, keepdim=True)
        padded = F.pad(gray, (1, 1, 1, 1), mode="replicate")
        dx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2])[:, 0]
        dy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1])[:, 0]
        strength = (dx.square() + dy.square()).sqrt()
        angle = torch.atan2(dy, dx).remainder(math.pi) * (_ORIENTATIONS / math.pi)
        # Split between the two nearest orientations, so that a small rotation changes little.
        lower = angle.floor().long() % _ORIENTATIONS
        fraction = angle - angle.floor()
        histogram = F.one_hot(lower, _ORIENTATIONS) * (strength * (1 - fraction))[..., None]
        histogram += (
            F.one_hot((lower + 1) % _ORIENTATIONS, _ORIENTATIONS) * (strength * fraction)[..., None]
        )
        orientations = self._cells(histogram.permute(0, 3, 1, 2))
        colors = self._cells(images) * _COLOR_WEIGHT
        # The square root limits the weight of a few very strong edges.
        return torch.cat([orientations.sqrt(), colors], dim=-1)

    def _cells(self, maps: Tensor) -> Tensor:
        """Return means over the cells of each patch: (B, channels, H, W) → (B, N, 4 channels)."""
        batch, channels = maps.shape[:2]
        cells = F.adaptive_avg_pool2d(maps, self.grid * _CELLS)
        cells = cells.view(batch, channels, self.grid, _CELLS, self.grid, _CELLS)
        return cells.permute(0, 2, 4, 1, 3, 5).reshape(batch, self.grid**2, -1)


class TimmTeacher(nn.Module):
    """The patch tokens of a timm network, on images resized so that its grid fits."""

    mean: Tensor
    std: Tensor

    def __init__(self, source: _TimmSource, grid: int, weights: Path | None) -> None:
        super().__init__()
        import timm

        self.dim = source.dim
        self.size = grid * source.patch
        # timm holds the projection of CLIP as classifier; DINO has none.
        self.network = timm.create_model(
            source.name,
            pretrained=weights is None,
            img_size=self.size,
            pretrained_cfg_overlay={"num_classes": source.num_classes},
            num_classes=source.num_classes,
        )
        if weights is not None:
            _load(self.network, source.name, weights)
        self.register_buffer("mean", torch.tensor(source.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(source.std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] → (B, N, dim)."""
        images = F.interpolate(images, self.size, mode="bicubic", align_corners=False)
        images = ((images + 1) / 2 - self.mean) / self.std
        tokens = self.network.forward_features(images)
        return self.network.head(tokens[:, 1:])


def _load(network: nn.Module, name: str, path: Path) -> None:
    """Load a file in the layout of timm, or in one that timm's filter converts."""
    from timm.models.vision_transformer import checkpoint_filter_fn

    saved = read_weights(path)
    state = checkpoint_filter_fn(saved, network)
    ours = network.state_dict()
    problems = {
        "missing": ours.keys() - state.keys(),
        "unknown": state.keys() - ours.keys(),
        "of another shape": {
            n for n in ours.keys() & state.keys() if ours[n].shape != state[n].shape
        },
    }
    if any(problems.values()):
        found = "; ".join(
            f"{len(names)} {problem}, such as {min(names)}"
            for problem, names in problems.items()
            if names
        )
        raise UnreadableWeights(
            f"{path}: not the weights of timm's {name}, in timm's layout or its authors' ({found})"
        )
    network.load_state_dict(state)
