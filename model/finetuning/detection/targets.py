"""Annotated objects of a batch: those of all images in one tensor, as images have few or many."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Objects:
    """The n objects of one image."""

    boxes: Tensor
    "(n, 4) float32, left, top, right, bottom in pixels."
    classes: Tensor
    "(n,) long."
    masks: Tensor
    "(n, H, W) bool in the size of the input image, or (n, 0, 0) without masks."
    has_mask: Tensor
    "(n,) bool, whether the object's mask is annotated."

    def __len__(self) -> int:
        """Return n."""
        return len(self.boxes)


@dataclass(frozen=True)
class Targets:
    """The objects of B images, one image after another."""

    objects: Objects
    counts: tuple[int, ...]
    "Number of objects of each image."

    def of_images(self) -> list[Objects]:
        """Return the objects of each image."""
        parts = [field.split(self.counts) for field in vars(self.objects).values()]
        return [Objects(*of_image) for of_image in zip(*parts, strict=True)]

    def each(self, change: Callable[[Tensor], Tensor]) -> "Targets":
        """Return a copy in which every tensor is changed, such as moved to a device."""
        return Targets(Objects(*map(change, vars(self.objects).values())), self.counts)
