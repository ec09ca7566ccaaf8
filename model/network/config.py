"""Sizes and switches of the network.

The paper's form is ``attention="shared", fusion_layers=3, subln=False``; the form that its
authors released is ``attention="decoupled", fusion_layers=0, subln=True``.
"""

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

_SIZES: Final = (
    "width", "depth", "num_heads", "ffn_width", "image_size", "patch_size", "vocab_size",
    "num_codes", "max_text_length",
)  # fmt: skip
"Fields of the configuration that count or measure something there must be."

FORMAT: Final = 1
"Number of the form of :meth:`BEiT3Config.to_json`; a change that older readers misread raises it."

Recomputing = Literal["none", "selective", "full"]
"What the backward of a block computes again instead of keeping it, see ``recomputing.py``."


@dataclass(frozen=True)
class BEiT3Config:
    """Everything that fixes the network's parameters and their meaning."""

    width: int
    "D, width of the hidden states."
    depth: int
    "Number of blocks."
    num_heads: int
    "H, attention heads of a block."
    ffn_width: int
    "Width of the hidden layer of each expert."
    image_size: int = 224
    "Pixels along each side of an image."
    patch_size: int = 16
    "Pixels along each side of a patch."
    fusion_layers: int = 3
    "Number of top blocks with a vision-language expert, which takes both modalities of a pair."
    attention: Literal["shared", "decoupled"] = "shared"
    "Whether q, k, v, out and every LayerNorm exist once, or once per modality."
    experts: Literal["multiway", "shared"] = "multiway"
    "Whether each modality has its own feed-forward network, or one serves both (Table 8a)."
    subln: bool = False
    "Whether Magneto's LayerNorms stand before the attention's output projection and before fc2."
    final_norm: bool = True
    "Whether a LayerNorm follows the last block; the authors' VQA and ImageNet networks have none."
    vocab_size: int = 64010
    "V, rows of the token embedding and outputs of the MLM head."
    num_codes: int = 8192
    "K, entries of the image tokenizer's codebook."
    image_target: Literal["codes", "pixels"] = "codes"
    "What the MIM head predicts of a masked patch: its code, or its normalized pixels (Table 8d)."
    max_text_length: int = 1022
    "Rows of the text position table: the longest text in tokens."
    pixel_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    "Mean of each RGB channel, subtracted from pixels in 0-1."
    pixel_std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    "Standard deviation of each RGB channel, by which the difference is divided."

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            _check_value(name, getattr(self, name), kind)
        for name in _SIZES:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if min(self.pixel_std) <= 0:
            raise ValueError(f"pixel_std is {self.pixel_std}; each number must be greater than 0")
        if self.width % self.num_heads:
            raise ValueError(
                f"width {self.width} is not a multiple of num_heads {self.num_heads}; "
                "change one of them"
            )
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}; "
                "change one of them"
            )
        if not 0 <= self.fusion_layers <= self.depth:
            raise ValueError(
                f"fusion_layers {self.fusion_layers} is not between 0 and depth {self.depth}"
            )
        if self.experts == "shared" and self.fusion_layers:
            raise ValueError(
                f"experts are shared and fusion_layers is {self.fusion_layers}; a network with one "
                "feed-forward network for both modalities has no fusion_layers: set it to 0"
            )

    @property
    def grid(self) -> int:
        """Return the number of patches along one side of an image."""
        return self.image_size // self.patch_size

    @property
    def num_patches(self) -> int:
        """Return N."""
        return self.grid**2

    @property
    def image_outputs(self) -> int:
        """Return the number of outputs of the MIM head."""
        return self.num_codes if self.image_target == "codes" else 3 * self.patch_size**2

    @classmethod
    def named(cls, size: str, **changes: Any) -> "BEiT3Config":
        """Return a named size with some fields changed.

        Raises:
            ValueError: no size has this name.
        """
        if size not in SIZES:
            raise ValueError(f"no size is named {size!r}; sizes: {', '.join(SIZES)}")
        return replace(SIZES[size], **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "BEiT3Config":
        """Return the configuration that :meth:`to_dict` gave, also after a pass through JSON.

        Raises:
            ValueError: a key is not a field, or the sizes do not fit together.
        """
        known = {field.name for field in fields(cls)}
        if unknown := values.keys() - known:
            raise ValueError(
                f"unknown fields of the network: {', '.join(sorted(unknown))}; correct them, or "
                "install the version that wrote them"
            )
        as_tuples: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**as_tuples)

    def to_json(self) -> str:
        """Return the content of a published ``network.json``."""
        return json.dumps({"format": FORMAT, **self.to_dict()}, indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> "BEiT3Config":
        """Return the configuration in a ``network.json``; within a workdir it has no format.

        Raises:
            ValueError: it is damaged, of a newer format, or no configuration of a network.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"no JSON ({error}); copy the file again") from None
        try:
            check_format("network.json", values)
            return cls.from_dict({k: v for k, v in values.items() if k != "format"})
        except (TypeError, AttributeError) as error:
            raise ValueError(f"no configuration of a network: {error}") from None


def check_format(name: str, values: dict[str, Any]) -> None:
    """Raise ValueError if a published JSON file is of a format that this version does not read."""
    found = values.get("format", FORMAT)
    if found != FORMAT:
        raise ValueError(
            f"{name} has format {found!r:.20}, this version reads {FORMAT}; install the version "
            "that wrote it"
        )


def _check_value(name: str, value: object, kind: Any) -> None:
    """Raise TypeError or ValueError unless a value is one that its field can have."""
    if get_origin(kind) is Literal:
        if value not in (choices := get_args(kind)):
            raise ValueError(f"{name} is {value!r:.40}; give one of {', '.join(choices)}")
    elif get_origin(kind) is tuple:
        numbers = value if isinstance(value, tuple) else ()
        right = [type(each) in (int, float) for each in numbers]
        if len(right) != len(get_args(kind)) or not all(right):
            raise TypeError(f"{name} is {value!r:.40}; give {len(get_args(kind))} numbers")
        if not all(map(math.isfinite, numbers)):
            raise ValueError(f"{name} is {value!r:.40}; each number must be finite")
    elif type(value) is not kind:
        words = "true or false" if kind is bool else "a whole number"
        raise TypeError(f"{name} is {value!r:.40}; give {words}")


SIZES: Final = {
    "tiny": BEiT3Config(96, 3, 3, 384, image_size=64, patch_size=8, fusion_layers=1),
    "small": BEiT3Config(384, 12, 6, 1536),
    "base": BEiT3Config(768, 12, 12, 3072),
    "large": BEiT3Config(1024, 24, 16, 4096),
    "giant": BEiT3Config(1408, 40, 16, 6144, patch_size=14),
}
