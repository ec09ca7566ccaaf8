"""Parameters of segmentation: sizes of the heads."""

from typing import Final

from pydantic import Field

from model.finetuning.segmentation.settings import AdapterSizes, Head, MaskSizes, SegmenterSizes
from orchestration.params import StageParams

_ADAPTER: Final = AdapterSizes()
_MASKS: Final = MaskSizes()


class AdapterParams(StageParams):
    """Sizes of ViT-Adapter; the defaults are those for large encoders."""

    num_heads: int = Field(default=_ADAPTER.num_heads, ge=1)
    "Heads of the deformable attention; they divide the width of its values."
    num_points: int = Field(default=_ADAPTER.num_points, ge=1)
    "Positions that a head reads from each map."
    value_ratio: float = Field(default=_ADAPTER.value_ratio, gt=0)
    "Width of the values of the deformable attention, as a multiple of the encoder's."
    hidden_ratio: float = Field(default=_ADAPTER.hidden_ratio, gt=0)
    "Width of the adapter's feed-forward networks, as a multiple of the encoder's."
    channels: int = Field(default=_ADAPTER.channels, ge=1)
    "Channels of the first convolutions over the image."


class MaskParams(StageParams):
    """Sizes of Mask2Former; the defaults are ViT-Adapter's for large encoders."""

    width: int = Field(default=_MASKS.width, ge=32, multiple_of=32)
    "Width of the pixel decoder and of the queries."
    num_heads: int = Field(default=_MASKS.num_heads, ge=1)
    "Attention heads of both decoders."
    pixel_layers: int = Field(default=_MASKS.pixel_layers, ge=1)
    "Layers of the pixel decoder."
    query_layers: int = Field(default=_MASKS.query_layers, ge=1)
    "Layers of the decoder of the queries."
    pixel_hidden: int = Field(default=_MASKS.pixel_hidden, ge=1)
    "Width of the feed-forward networks of the pixel decoder."
    query_hidden: int = Field(default=_MASKS.query_hidden, ge=1)
    "Width of the feed-forward networks of the decoder of the queries."
    num_queries: int = Field(default=_MASKS.num_queries, ge=1)
    "Masks that are predicted for an image."
    num_points: int = Field(default=_MASKS.num_points, ge=4)
    "Points at which the masks of an image are compared with annotated ones."


class SegmenterParams(StageParams):
    """Sizes of the heads, and which blocks of the encoder attend to the whole image."""

    window: int = Field(default=64, ge=1)
    "Rows and columns of patches in a window of the encoder's attention."
    num_global: int = Field(default=4, ge=1)
    "Number of blocks whose attention covers the whole image, at even places."
    channels: int = Field(default=256, ge=1)
    "Channels of the head `pyramid`."
    adapter: AdapterParams = AdapterParams()
    "Sizes of ViT-Adapter; without effect on `pyramid`."
    masks: MaskParams = MaskParams()
    "Sizes of Mask2Former; without effect on `pyramid`."

    def unfit_heads(self, head: Head, width: int) -> str | None:
        """Return which attention heads do not divide their width, or None.

        Args:
            head: of the network.
            width: D, of the encoder.
        """
        if head != "mask2former":
            return None
        inner, num_heads = round(width * self.adapter.value_ratio), self.adapter.num_heads
        if not inner or inner % num_heads:
            return (
                f"task.sizes.adapter.num_heads = {num_heads} does not divide the width {inner} of "
                f"the values, which is value_ratio times the encoder's {width}"
            )
        if self.masks.width % self.masks.num_heads:
            return (
                f"task.sizes.masks.num_heads = {self.masks.num_heads} does not divide "
                f"task.sizes.masks.width = {self.masks.width}"
            )
        return None

    def of(self, head: Head, class_balance: float) -> SegmenterSizes:
        """Return the sizes as the network with a head takes them."""
        return SegmenterSizes(
            head,
            self.window,
            self.num_global,
            self.channels,
            class_balance,
            AdapterSizes(**self.adapter.model_dump()),
            MaskSizes(**self.masks.model_dump()),
        )
