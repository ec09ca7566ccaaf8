"""Sizes of the segmentation heads; the defaults are ViT-Adapter's for large encoders."""

from dataclasses import dataclass
from typing import Final, Literal

IGNORED: Final = 255
"Label of the pixels that no loss and no metric counts."

Head = Literal["pyramid", "mask2former"]


@dataclass(frozen=True)
class AdapterSizes:
    """What fixes the parameters of ViT-Adapter."""

    num_heads: int = 16
    "Heads of the deformable attention."
    num_points: int = 4
    "Positions that a head reads from each map."
    value_ratio: float = 0.5
    "Width of the values of the deformable attention, as a multiple of the encoder's."
    hidden_ratio: float = 0.25
    "Width of the adapter's feed-forward networks, as a multiple of the encoder's."
    channels: int = 64
    "Channels of the first convolutions over the image."


@dataclass(frozen=True)
class MaskSizes:
    """What fixes the parameters of Mask2Former, and on how many points masks are compared."""

    width: int = 1024
    "Width of the pixel decoder and of the queries; a multiple of 32."
    num_heads: int = 32
    "Attention heads of both decoders."
    pixel_layers: int = 6
    "Layers of the pixel decoder."
    query_layers: int = 9
    "Layers of the decoder of the queries."
    pixel_hidden: int = 4096
    "Width of the feed-forward networks of the pixel decoder."
    query_hidden: int = 4096
    "Width of the feed-forward networks of the decoder of the queries."
    num_queries: int = 200
    "Masks that are predicted for an image."
    num_points: int = 12544
    "Points at which the masks of an image are compared with annotated ones."


@dataclass(frozen=True)
class SegmenterSizes:
    """What fixes the parameters of the heads, and which blocks attend to the whole image."""

    head: Head = "mask2former"
    "``pyramid`` is the smaller one."
    window: int = 64
    "Rows and columns of patches in a window of the encoder's attention."
    num_global: int = 4
    "Blocks of the encoder that attend to the whole image."
    channels: int = 256
    "Channels of the head ``pyramid``."
    class_balance: float = 0.0
    "Of the loss of the head ``pyramid``: how much more pixels of rare classes count, from 0 to 1."
    adapter: AdapterSizes = AdapterSizes()
    "Of the head ``mask2former``."
    masks: MaskSizes = MaskSizes()
    "Of the head ``mask2former``."
