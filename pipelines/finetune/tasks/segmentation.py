"""Semantic segmentation: the class of each pixel.

The network is ViT-Adapter with Mask2Former, as in the paper, or the encoder with a small head
(``model/finetuning/segmentation``). Training images are resized by a random ratio and cut;
evaluated ones are seen through overlapping windows, perhaps at several scales and mirrored.
"""

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from dataprep.sources.annotations import AnnotationError
from dataprep.sources.lines import ListError
from dataprep.tasks.label_classes import read_classes
from dataprep.tasks.stored_label_maps import fractions, stored
from model import BEiT3, BEiT3Config
from model.finetuning.segmentation.network import ForSegmentation, side_multiple
from model.finetuning.segmentation.settings import Head
from model.finetuning.segmentation.windows import ScaledView, best_classes
from model.finetuning.task_networks import TaskNetwork
from model.metrics.segmentation import METRICS
from model.training import randomness
from orchestration.params import EXTERNAL_FILE
from pipelines.finetune.batch import Ints, TaskBatch
from pipelines.finetune.label_map_files import zip_of
from pipelines.finetune.label_map_score import chance_of, score_of, score_tables
from pipelines.finetune.label_map_views import (
    CropParams,
    batch_of,
    evaluated_images,
    training_crops,
)
from pipelines.finetune.segmentation_params import SegmenterParams
from pipelines.finetune.task import Draw, Prediction, Task
from pipelines.finetune.texts import TextEncoder

_CHANCE: Final = "chance/"
_PACKAGES: Final = ("torchmetrics", "transformers")


class Segmentation(Task):
    """ADE20K, and own images with label maps."""

    metric: ClassVar = "mIoU"
    num_images: ClassVar = 1
    num_texts: ClassVar = (0, 0)
    needs_labels: ClassVar = False
    truth_name: ClassVar = "label map"
    columns: ClassVar = (*Task.columns, "label_map", "size")
    is_dense: ClassVar = True
    submission_name: ClassVar = "submission.zip"

    name: Literal["segmentation"]
    "Semantic segmentation."
    classes: Annotated[str | None, EXTERNAL_FILE] = None
    "Path of the list of classes, as in `data`, all of which count; null takes those that occur."
    head: Head = "mask2former"
    "`mask2former` on ViT-Adapter, as in the paper, or `pyramid`, a small convolutional head."
    sizes: SegmenterParams = SegmenterParams()
    "Sizes of the heads."
    class_balance: float = Field(default=0, ge=0, le=1)
    "How much more pixels of rare classes count in the loss of `pyramid`; at 1, all classes alike."
    ratios: tuple[float, float] = (0.5, 2.0)
    "Smallest and largest length of a training image's shorter side, as multiples of image_size."
    max_fraction: float = Field(default=0.75, gt=0, le=1)
    "Of a training crop's labeled pixels that one class covers at most, if ten draws find such."
    distort: bool = True
    "Whether brightness, contrast, saturation and hue of training images change."
    test_scales: tuple[float, ...] = Field(default=(1.0,), min_length=1)
    "Lengths of an evaluated image's shorter side, as multiples of image_size; scores are averaged."
    test_flip: bool = False
    "Whether an evaluated image is also seen mirrored."
    window_stride: float = Field(default=0.6, gt=0, le=1)
    "Distance of the windows over an evaluated image, as a fraction of image_size."

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> Self:
        if not 0 < self.ratios[0] <= self.ratios[1]:
            raise ValueError(f"ratios = {self.ratios} is no range of positive numbers")
        if min(self.test_scales) <= 0:
            raise ValueError(f"test_scales = {self.test_scales} has a number that is not positive")
        if self.class_balance and self.head != "pyramid":
            raise ValueError(
                f"class_balance = {self.class_balance} has no effect on the head {self.head}, "
                "whose masks count alike; leave it out"
            )
        return self

    @property
    def metric_names(self) -> Sequence[str]:
        """See :class:`Task`."""
        return METRICS

    def requires(self) -> str | None:
        """See :class:`Task`."""
        for package in _PACKAGES:
            if importlib.util.find_spec(package) is None:
                return (
                    f"task.name = segmentation needs {package}: pip install 'beit3-pipeline[tasks]'"
                )
        try:
            if self.classes is not None:
                read_classes(Path(self.classes))
        except (AnnotationError, ListError, OSError) as error:
            return f"task.classes: {error}"
        return None

    def unfit_input(self, config: BEiT3Config) -> str | None:
        """See :class:`Task`: maps cover a window exactly, attention heads divide their width."""
        multiple = side_multiple(self.head, config.patch_size)
        if config.image_size % multiple:
            return (
                f"network.image_size = {config.image_size} is not a multiple of {multiple}, which "
                f"the head {self.head} needs at patches of {config.patch_size} pixels"
            )
        return self.sizes.unfit_heads(self.head, config.width)

    def label_names(self, splits: Mapping[str, pa.Table]) -> list[str]:
        """See :class:`Task`: in the order of their list, or else those that occur, sorted."""
        found = {
            name
            for table in splits.values()
            for name in pc.unique(pc.list_flatten(table["labels"])).to_pylist()
        }
        if not found:
            raise ValueError("no image of train and dev has a label map")
        if self.classes is None:
            return sorted(found)
        names = list(read_classes(Path(self.classes)).names)
        if not found & {*names}:
            raise ValueError(
                f"no pixel is of a class of {self.classes}; the first class that occurs is "
                f"{min(found)}"
            )
        return names

    def network(self, encoder: BEiT3, labels: Sequence[str], texts: TextEncoder) -> TaskNetwork:
        """See :class:`Task`."""
        return ForSegmentation(encoder, len(labels), self.sizes.of(self.head, self.class_balance))

    def targets(self, rows: pa.Table, labels: Mapping[str, int]) -> None:
        """See :class:`Task`: label maps are changed with the pixels, see :meth:`dense_batch`."""

    def is_used(self, rows: pa.Table, labels: Mapping[str, int]) -> list[bool]:
        """See :class:`Task`: an image without a known class is not trained on."""
        return [any(name in labels for name in some) for some in rows["labels"].to_pylist()]

    def can_score(self, examples: pa.Table) -> bool:
        """See :class:`Task`: some image has a label map."""
        return any(examples["labels"].to_pylist())

    def drawn(
        self, batch: TaskBatch, texts: TextEncoder, seed: int, step: int, slots: Ints
    ) -> TaskBatch:
        """See :class:`Task`: at which points masks are compared."""
        return replace(batch, seeds=randomness.bits(seed, step, slots).tolist())

    def dense_batch(
        self,
        batch: TaskBatch,
        rows: pa.Table,
        labels: Mapping[str, int],
        image_size: int,
        draw: Draw | None,
    ) -> TaskBatch:
        """See :class:`Task`."""
        if draw is not None:
            params = CropParams(self.ratios, self.max_fraction, self.distort)
            crops = training_crops(rows, labels, image_size, params, draw)
            pixels, classes = (np.stack(some) for some in zip(*crops, strict=True))
            return replace(
                batch,
                pixels=torch.from_numpy(pixels[:, None]),
                targets=torch.from_numpy(classes),
            )
        images = list(evaluated_images(rows, self.shorter_side(image_size)))
        sizes = [(height, width) for width, height in rows["size"].to_pylist()]
        return batch_of(batch, images, sizes)

    def shorter_side(self, image_size: int) -> float:
        """Return the length of the shorter side of an evaluated image, the largest one.

        Args:
            image_size: side of the network's input.
        """
        return image_size * max(self.test_scales)

    def losses(self, network: TaskNetwork, batch: TaskBatch) -> dict[str, Tensor]:
        """See :class:`Task`: the losses of the head add up."""
        assert isinstance(network, ForSegmentation)
        assert batch.images is not None and batch.targets is not None
        parts = network.losses(
            batch.images[:, 0], batch.targets.long(), batch.seeds, batch.scale(0)
        )
        sums = {name: loss.sum() for name, loss in parts.items()}
        return {"loss": torch.stack([*sums.values()]).sum(), **sums}

    def predict(
        self, network: TaskNetwork, batch: TaskBatch, labels: Sequence[str]
    ) -> Iterator[Prediction]:
        """See :class:`Task`."""
        assert isinstance(network, ForSegmentation) and batch.images is not None
        window = network.network.config.image_size
        stride = max(round(window * self.window_stride), 1)
        for image, seen, annotated in zip(
            batch.images[:, 0], batch.seen, batch.annotated, strict=True
        ):
            views = self._views(image[:, : seen[0], : seen[1]])
            classes = best_classes(network.scores, views, annotated, window, stride)
            png, names = stored(classes.cpu().numpy().astype(np.uint8), labels)
            yield Prediction(
                names,
                fractions(png, len(names)),
                size=annotated[::-1],
                label_map=png,
            )

    def score(self, predictions: pa.Table, examples: pa.Table) -> dict[str, float]:
        """Return mean IoU and the accuracy of pixels, over all and as a mean over the classes."""
        return dict(score_of(predictions, examples)[0].metrics)

    def full_score(
        self, predictions: pa.Table, examples: pa.Table
    ) -> tuple[dict[str, float], dict[str, str]]:
        """See :class:`Task`: chance is the most frequent class everywhere."""
        found, _ = score_of(predictions, examples)
        chance = {f"{_CHANCE}{name}": value for name, value in chance_of(found).items()}
        return found.metrics | chance, {}

    def score_files(self, predictions: pa.Table, examples: pa.Table) -> Mapping[str, bytes]:
        """See :class:`Task`: a table of the classes, and which are taken for each other."""
        return score_tables(*score_of(predictions, examples))

    def is_right(self, label: str, given: Sequence[str]) -> bool | None:
        """See :class:`Task`: an image has many classes."""
        return None

    def submission(self, predictions: pa.Table) -> bytes | None:
        """Return a zip archive of label maps; without ``classes`` their values are unknown."""
        if self.classes is None:
            return None
        return zip_of(predictions, read_classes(Path(self.classes)))

    def _views(self, image: Tensor) -> list[ScaledView]:
        """Return an image at all scales, made from the largest one (3, H, W)."""
        largest, views = max(self.test_scales), []
        for scale in self.test_scales:
            scaled = image
            if scale != largest:
                size = [max(round(side * scale / largest), 1) for side in image.shape[1:]]
                scaled = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
            views.append(ScaledView(scaled, flipped=False))
            if self.test_flip:
                views.append(ScaledView(scaled.flip(2), flipped=True))
        return views
