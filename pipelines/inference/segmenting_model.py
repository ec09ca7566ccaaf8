"""A model that says the class of each pixel, in the size of the images as they were given.

An image is scaled by its shorter side and seen through overlapping windows, as the stage
``predict`` does. A view (:class:`MapView`) carries the image's size beside the pixels.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from dataprep.images import Pixels
from model.finetuning.task_networks import TaskNetwork
from pipelines.finetune.label_map_views import batch_of, evaluated_image
from pipelines.finetune.tasks.segmentation import Segmentation
from pipelines.inference.batching import at_least_one, batch_of_rows
from pipelines.inference.loaded_model import LoadedModel
from pipelines.inference.processor import ImageInput, decoded, many
from pipelines.inference.results import SegmentedImage
from pipelines.inference.uses import require


@dataclass(frozen=True)
class MapView:
    """One image as the network sees it."""

    pixels: Pixels
    "(height, width, 3) as scaled."
    size: tuple[int, int]
    "Height and width of the image."


class SegmentingModel(LoadedModel):
    """A loaded model with the method ``segment``."""

    def segment(self, images: Iterable[ImageInput], *, batch_size: int = 8) -> list[SegmentedImage]:
        """Return the class of each pixel of each image.

        Args:
            images: B images.
            batch_size: images that are decoded together; the windows of one image after another
                pass the network.
        """
        require(self, "segment")
        given, size = enumerate(many(images, "images")), at_least_one(batch_size, "batch_size")
        found: list[SegmentedImage] = []
        while some := list(islice(given, size)):
            found += self.segment_views([self.map_view(decoded(each, i)) for i, each in some])
        return found

    def map_view(self, image: Pixels) -> MapView:
        """Return how the network sees an image (height, width, 3)."""
        assert isinstance(self.task, Segmentation)
        shorter = self.task.shorter_side(self.source.config.image_size)
        return MapView(evaluated_image(image, shorter), (image.shape[0], image.shape[1]))

    def segment_views(self, views: Sequence[MapView]) -> list[SegmentedImage]:
        """Return the classes of images of which :meth:`map_view` made views."""
        task, network, labels = self.task, self.network, list(self.labels)
        assert isinstance(task, Segmentation) and isinstance(network, TaskNetwork)
        # One by one: beside a tall image a wide one would be padded to the square of both.
        batches = (
            batch_of(batch_of_rows(np.arange(1), self.source.config), [view.pixels], [view.size])
            for view in views
        )
        found = self._computed(lambda some: next(task.predict(network, some, labels)), batches)
        return [
            SegmentedImage(tuple(each.labels), tuple(each.scores), each.label_map or b"")
            for each in found
        ]
