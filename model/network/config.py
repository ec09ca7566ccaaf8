"""Sizes and switches of the network.

The paper's form is ``attention="shared", fusion_layers=3, subln=False``; the form that its
authors released is ``attention="decoupled", fusion_layers=0, subln=True``.
"""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, Literal


@dataclass(frozen=True)
class BEiT3Config:
    """Everything that fixes the network's parameters and their meaning."""

    width: int
    depth: int
    heads: int
    ffn_width: int
    image_size: int = 224
    patch_size: int = 16
    fusion_layers: int = 3
    "Top layers whose vision-language expert takes both modalities of a pair."
    attention: Literal["shared", "decoupled"] = "shared"
    "Whether q, k, v, out and every LayerNorm exist once, or once per modality."
    subln: bool = False
    "Magneto's LayerNorms before the attention's output projection and before fc2."
    vocabulary: int = 64010
    codes: int = 8192
    max_text_length: int = 1022
    drop_path: float = 0.0
    pixel_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    pixel_std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}"
            )
        if not 0 <= self.fusion_layers <= self.depth:
            raise ValueError(f"fusion_layers {self.fusion_layers} is not in 0 … {self.depth}")

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size

    @property
    def num_patches(self) -> int:
        """N."""
        return self.grid**2

    @classmethod
    def named(cls, size: str, **changes: Any) -> "BEiT3Config":
        """Return a named size with some fields changed.

        Raises:
            ValueError: no such size.
        """
        if size not in SIZES:
            raise ValueError(f"no size is named {size!r}; sizes: {', '.join(SIZES)}")
        return replace(SIZES[size], **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-able values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "BEiT3Config":
        """Read what :meth:`to_dict` gave."""
        known = {field.name for field in fields(cls)}
        if unknown := values.keys() - known:
            raise ValueError(f"unknown fields of the network: {', '.join(sorted(unknown))}")
        as_tuples: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**as_tuples)


SIZES: Final = {
    "tiny": BEiT3Config(96, 3, 3, 384, image_size=64, patch_size=8, fusion_layers=1),
    "small": BEiT3Config(384, 12, 6, 1536),
    "base": BEiT3Config(768, 12, 12, 3072),
    "large": BEiT3Config(1024, 24, 16, 4096),
    "giant": BEiT3Config(1408, 40, 16, 6144, patch_size=14),
}
