"""A model that finds objects: boxes and masks in pixels of the images as they were given.

An image is scaled to fit into the network's square and padded, as the stage ``predict`` does. Its
size decides where boxes lie, so a view (:class:`View`) carries it beside the pixels.
"""

from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np

from dataprep.images import Pixels
from model.finetuning.task_networks import TaskNetwork
from pipelines.finetune.object_views import View, batch_of, evaluation_view
from pipelines.finetune.task import Prediction
from pipelines.finetune.tasks.detection import Detection
from pipelines.inference.batching import at_least_one, batch_of_rows
from pipelines.inference.loaded_model import LoadedModel
from pipelines.inference.processor import ImageInput, decoded, many
from pipelines.inference.results import DetectedObject
from pipelines.inference.uses import require


class DetectingModel(LoadedModel):
    """A loaded model with the method ``detect``."""

    def detect(
        self,
        images: Iterable[ImageInput],
        *,
        min_score: float | None = None,
        batch_size: int = 8,
    ) -> list[list[DetectedObject]]:
        """Return the objects of each image, best first.

        Args:
            images: B images.
            min_score: score above which a box is an object; None takes that of the recipe.
            batch_size: images in a forward pass.
        """
        require(self, "detect")
        given, size = enumerate(many(images, "images")), at_least_one(batch_size, "batch_size")
        found: list[list[DetectedObject]] = []
        while some := list(islice(given, size)):
            views = [self.object_view(decoded(image, number)) for number, image in some]
            found += self.detect_in_views(views, min_score=min_score)
        return found

    def object_view(self, image: Pixels) -> View:
        """Return how the network sees an image (height, width, 3)."""
        assert isinstance(self.task, Detection)
        return evaluation_view(image, self.task.view_size(self.source.config.image_size))

    def detect_in_views(
        self, views: Sequence[View], *, min_score: float | None = None
    ) -> list[list[DetectedObject]]:
        """Return the objects of images of which :meth:`object_view` made views, in one batch.

        Raises:
            ValueError: ``min_score`` is not from 0 to less than 1.
        """
        task, network, labels = self.task, self.network, list(self.labels)
        assert isinstance(task, Detection) and isinstance(network, TaskNetwork)
        if min_score is not None:
            if not 0 <= min_score < 1:
                raise ValueError(f"min_score is {min_score}; give 0 or more, less than 1")
            choice = task.choice.model_copy(update={"min_score": min_score})
            task = task.model_copy(update={"choice": choice})
        batch = batch_of_rows(np.arange(len(views)), self.source.config)
        batches = [batch_of(batch, views)] if views else []
        found = self._computed(lambda some: list(task.predict(network, some, labels)), batches)
        return [_objects(each) for some in found for each in some]


def _objects(found: Prediction) -> list[DetectedObject]:
    width, height = found.size
    masks: Sequence[str | None] = found.masks or [None] * len(found.labels)
    parts = zip(found.labels, found.scores, found.boxes, masks, strict=True)
    return [
        DetectedObject(label, score, (x, y, w, h), (width, height), mask)
        for label, score, (x, y, w, h), mask in parts
    ]
