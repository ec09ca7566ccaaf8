"""Crops of the images of a micro-batch, with their codes: of stored views or of new ones.

A stored view is cut again at its box, and its codes are those that were stored; color jitter
changes only what the network sees, and may wait until the crops are on a GPU. A new view is drawn
at each visit and cut out of the jittered image, as in BEiT v2; the image tokenizer then computes
its codes within the step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataprep.color_jitter import NUM_UNIFORMS, drawn_operations
from dataprep.crop_batches import CropRequest, NewCrops, Pixels, StoredCrops
from model import BEiT3Config
from model.training import randomness
from pipelines.pretrain.crop_processes import crop_here
from pipelines.readers.columns import matrix
from pipelines.tokens.image_tokens import VIEW_NUMBERS

Ints = NDArray[np.int64]
CropMaker = Callable[[CropRequest, pa.Table], list[Pixels]]
"Makes the crops of B rows: an array (B, size, size, 3) for each size of the request."


@dataclass(frozen=True)
class Crops:
    """The crops of B images."""

    images: Pixels
    "(B, H, W, 3) RGB, the network's input."
    codes: Ints | None = None
    "(B, N); None if they are computed within the step."
    for_tokenizer: Pixels | None = None
    "(B, H', W', 3) RGB, the same crops at the tokenizer's size; None if codes are stored."
    jitter: tuple[Ints, NDArray[np.float32]] | None = None
    "Operations (B, 3) and factors (B, 3) of the color jitter that is still to be done, if any."


@dataclass(frozen=True)
class NewViews:
    """How a new view is drawn at each visit."""

    min_crop_scale: float
    "Smallest fraction of an image's area that a view covers."
    flip: bool
    "Whether half of the views are mirrored."
    tokenizer_size: int
    "Side of the tokenizer's input in pixels."


class StoredViewCutter:
    """Cuts one of the stored views of each image."""

    columns: ClassVar = ("sample_id", "jpeg", "views", "codes")

    def __init__(
        self,
        network: BEiT3Config,
        color_jitter: float,
        view_seed: int,
        jitter_seed: int,
        *,
        jitters_later: bool = False,
    ) -> None:
        self.network, self.color_jitter, self.jitters_later = network, color_jitter, jitters_later
        self.view_seed, self.jitter_seed = view_seed, jitter_seed

    def __call__(
        self, rows: pa.Table, step: int, slots: Ints, crop: CropMaker = crop_here
    ) -> Crops:
        """Return the crops of B rows, for the slots (B,) of a step; ``crop`` makes them.

        Raises:
            ValueError: the number of codes of a view is not the network's number of patches, or
                a stored image is damaged; the message names its sample.
        """
        network = self.network
        codes, views = matrix(rows["codes"]), matrix(rows["views"])
        num_views = views.shape[1] // VIEW_NUMBERS
        if codes.shape[1] != num_views * network.num_patches:
            raise ValueError(
                f"each view has {codes.shape[1] // num_views} codes, but the network has "
                f"{network.num_patches} patches: tokenizer and network disagree on the grid"
            )
        chosen = self.drawn_views(num_views, step, slots)
        of_slot = np.arange(len(slots))
        boxes = views.reshape(len(slots), num_views, VIEW_NUMBERS)[of_slot, chosen]
        of_view = codes.reshape(len(slots), num_views, -1)[of_slot, chosen]
        uniforms = _jitter_uniforms(self.jitter_seed, step, slots)
        now = 0.0 if self.jitters_later else self.color_jitter
        (images,) = crop(StoredCrops(boxes, network.image_size, now, uniforms), rows)
        later = self.color_jitter and self.jitters_later
        jitter = drawn_operations(self.color_jitter, uniforms) if later else None
        return Crops(images, codes=of_view.astype(np.int64), jitter=jitter)

    def drawn_views(self, num_views: int, step: int, slots: Ints) -> Ints:
        """Return the index of the stored view drawn for each slot (B,) of a step."""
        return randomness.integers(num_views, self.view_seed, step, slots)


class NewViewCutter:
    """Draws and cuts a new view of each image."""

    columns: ClassVar = ("sample_id", "jpeg")

    def __init__(
        self,
        network: BEiT3Config,
        color_jitter: float,
        view_seed: int,
        jitter_seed: int,
        views: NewViews,
    ) -> None:
        self.network, self.color_jitter, self.views = network, color_jitter, views
        self.view_seed, self.jitter_seed = view_seed, jitter_seed

    def __call__(
        self, rows: pa.Table, step: int, slots: Ints, crop: CropMaker = crop_here
    ) -> Crops:
        """Return the crops of B rows, for the slots (B,) of a step; ``crop`` makes them.

        Raises:
            ValueError: a stored image is damaged; the message names its sample.
        """
        request = NewCrops(
            [f"{step}/{slot}" for slot in slots.tolist()],
            self.view_seed,
            self.views.min_crop_scale,
            self.views.flip,
            (self.network.image_size, self.views.tokenizer_size),
            self.color_jitter,
            _jitter_uniforms(self.jitter_seed, step, slots),
        )
        images, for_tokenizer = crop(request, rows)
        return Crops(images, for_tokenizer=for_tokenizer)


def _jitter_uniforms(seed: int, step: int, slots: Ints) -> NDArray[np.float64]:
    return randomness.uniform(seed, step, slots[:, None], np.arange(NUM_UNIFORMS)[None, :])
