"""Object detection and instance segmentation: boxes, classes and masks of what an image shows.

The network is ViTDet's with a cascade of box heads (``model/finetuning/detection``), as in the
paper. Training images have large-scale jitter; evaluated ones are scaled to fit into the input, and
may be seen at several sizes and mirrored.
"""

import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, Self

import pyarrow as pa
import pyarrow.compute as pc
import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor

from dataprep.sources.annotations import AnnotationError
from dataprep.tasks.coco_instances import read_categories
from dataprep.tasks.run_lengths import text_of_part
from model import BEiT3, BEiT3Config
from model.finetuning.detection.masks import pasted_parts
from model.finetuning.detection.multiscale import ScaledImage, detect_multiscale
from model.finetuning.detection.network import Detections, ForDetection, Size
from model.finetuning.detection.pyramid import SCALES, STRIDE_MULTIPLE
from model.finetuning.detection.settings import Choice, DetectorSizes
from model.finetuning.task_networks import TaskNetwork
from model.metrics.coco import METRICS, CocoScore
from model.training import randomness
from orchestration.params import EXTERNAL_FILE
from pipelines.finetune.batch import Ints, TaskBatch
from pipelines.finetune.coco_rows import (
    Truth,
    lacks_masks,
    numbered_classes,
    results_by_chance,
    results_of,
    truth_of,
)
from pipelines.finetune.detection_params import ChoiceParams, HeadParams
from pipelines.finetune.object_score import CLASSES, class_table, metrics_of, scores_of
from pipelines.finetune.object_views import (
    batch_of,
    evaluation_views,
    num_objects,
    targets_of,
    training_views,
)
from pipelines.finetune.task import Draw, Prediction, Task
from pipelines.finetune.texts import TextEncoder

_CHANCE: Final = "chance/"


class Detection(Task):
    """COCO, Objects365, and own images with boxes and masks."""

    metric: ClassVar = "box_AP"
    num_images: ClassVar = 1
    num_texts: ClassVar = (0, 0)
    needs_labels: ClassVar = False
    truth_name: ClassVar = "object"
    columns: ClassVar = (*Task.columns, "objects", "size")
    is_dense: ClassVar = True

    name: Literal["detection"]
    "Object detection and instance segmentation."
    categories: Annotated[str | None, EXTERNAL_FILE] = None
    "Path of a file in COCO's form whose `categories` are the classes; null takes those that occur."
    masks: bool = True
    "Whether masks are predicted; data without masks, as Objects365, has boxes alone."
    scales: tuple[float, float] = (0.1, 2.0)
    "Smallest and largest scale of a training image, relative to the one that fits into the input."
    test_sizes: tuple[int, ...] = ()
    "Sides in pixels at which an evaluated image is seen, jointly; empty takes network.image_size."
    test_flip: bool = False
    "Whether an evaluated image is also seen mirrored."
    heads: HeadParams = HeadParams()
    "Sizes of the heads."
    choice: ChoiceParams = ChoiceParams()
    "How detections are chosen."

    @model_validator(mode="after")
    def _scales_are_a_range(self) -> Self:
        if not 0 < self.scales[0] <= self.scales[1]:
            raise ValueError(f"scales = {self.scales} is no range of positive numbers")
        return self

    @property
    def metric_names(self) -> Sequence[str]:
        """See :class:`Task`."""
        kinds = ("box", "mask") if self.masks else ("box",)
        return [f"{kind}_{name}" for kind in kinds for name in METRICS]

    def requires(self) -> str | None:
        """See :class:`Task`."""
        if importlib.util.find_spec("faster_coco_eval") is None:
            return (
                "task.name = detection needs faster-coco-eval: pip install 'beit3-pipeline[tasks]'"
            )
        try:
            if self.categories is not None:
                read_categories(Path(self.categories))
        except (AnnotationError, OSError) as error:
            return f"task.categories: {error}"
        return None

    def unfit_input(self, config: BEiT3Config) -> str | None:
        """See :class:`Task`: every map of the pyramid covers the image exactly."""
        if config.patch_size % SCALES[0]:
            return (
                f"network.patch_size = {config.patch_size} is not a multiple of {SCALES[0]:g}, as "
                "the pyramid needs; set network.patch_size=16, which resizes the patches' kernel"
            )
        multiple = STRIDE_MULTIPLE * config.patch_size
        sizes = {"network.image_size": [config.image_size], "task.test_sizes": self.test_sizes}
        for key, sides in sizes.items():
            if wrong := [side for side in sides if side < multiple or side % multiple]:
                return f"{key} = {wrong[0]} is not a multiple of {multiple}, which is four patches"
        return None

    def label_names(self, splits: Mapping[str, pa.Table]) -> list[str]:
        """See :class:`Task`: in the order of their ids, or else sorted."""
        found = {
            label
            for table in splits.values()
            for label in pc.unique(pc.list_flatten(table["labels"])).to_pylist()
        }
        if not found:
            raise ValueError("no image of train and dev has an object")
        if self.masks and (bare := [name for name in splits if lacks_masks(splits[name])]):
            raise ValueError(f"no object of {bare[0]} has a mask; set task.masks=false")
        if self.categories is None:
            return sorted(found)
        names = list(read_categories(Path(self.categories)).values())
        if not found & {*names}:
            raise ValueError(
                f"no object is of a category of {self.categories}; the first class that occurs is "
                f"{min(found)}"
            )
        return names

    def network(self, encoder: BEiT3, labels: Sequence[str], texts: TextEncoder) -> TaskNetwork:
        """See :class:`Task`."""
        sizes = DetectorSizes(**self.heads.model_dump(), with_masks=self.masks)
        return ForDetection(encoder, len(labels), sizes)

    def targets(self, rows: pa.Table, labels: Mapping[str, int]) -> None:
        """See :class:`Task`: objects are changed with the pixels, see :meth:`dense_batch`."""

    def is_used(self, rows: pa.Table, labels: Mapping[str, int]) -> list[bool]:
        """See :class:`Task`: an image without objects is not trained on, as in Detectron2."""
        return (num_objects(rows, labels) > 0).tolist()

    def can_score(self, examples: pa.Table) -> bool:
        """See :class:`Task`: some object is no crowd, and has a mask if masks are predicted."""
        things = pc.list_flatten(examples["objects"]).combine_chunks()
        is_single = pc.invert(pc.struct_field(things, "is_crowd"))
        if self.masks:
            is_single = pc.and_(is_single, pc.not_equal(pc.struct_field(things, "mask"), ""))
        return bool(pc.any(is_single).as_py())

    def drawn(
        self, batch: TaskBatch, texts: TextEncoder, seed: int, step: int, slots: Ints
    ) -> TaskBatch:
        """See :class:`Task`: which boxes are trained on."""
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
        if draw is None:
            views = list(evaluation_views(rows, self.view_size(image_size)))
        else:
            views = list(
                training_views(rows, labels, image_size, self.scales, draw, with_masks=self.masks)
            )
            batch = replace(batch, objects=targets_of(views))
        return batch_of(batch, views)

    def view_size(self, image_size: int) -> int:
        """Return the side in pixels of the view of an evaluated image, the largest one.

        Args:
            image_size: side of the network's input.
        """
        return max(self.test_sizes, default=image_size)

    def losses(self, network: TaskNetwork, batch: TaskBatch) -> dict[str, Tensor]:
        """See :class:`Task`: the losses of all heads add up."""
        assert isinstance(network, ForDetection)
        assert batch.images is not None and batch.objects is not None
        parts = network.losses(batch.images[:, 0], batch.objects, batch.seeds, batch.scale(0))
        sums = {name: loss.sum() for name, loss in parts.items()}
        return {"loss": torch.stack([*sums.values()]).sum(), **sums}

    def predict(
        self, network: TaskNetwork, batch: TaskBatch, labels: Sequence[str]
    ) -> Iterator[Prediction]:
        """See :class:`Task`."""
        assert isinstance(network, ForDetection) and batch.images is not None
        images, choice = batch.images[:, 0], Choice(**self.choice.model_dump())
        if self.test_sizes or self.test_flip:
            parts = zip(images, batch.seen, strict=True)
            found = [
                detect_multiscale(network, self._views(image, seen), seen, choice)
                for image, seen in parts
            ]
        else:
            found = network.detect(images, batch.seen, choice)
        for each, seen, annotated in zip(found, batch.seen, batch.annotated, strict=True):
            yield _prediction(each, seen, annotated, labels)

    def score(self, predictions: pa.Table, examples: pa.Table) -> dict[str, float]:
        """Return COCO's metrics of boxes and masks."""
        return metrics_of(self._scored(predictions, examples)[0])

    def full_score(
        self, predictions: pa.Table, examples: pa.Table
    ) -> tuple[dict[str, float], dict[str, str]]:
        """See :class:`Task`: chance is the objects of the image before."""
        scores, truth = self._scored(predictions, examples)
        chance = scores_of(truth, list(results_by_chance(truth)), with_masks=self.masks)
        by_chance = {f"{_CHANCE}{name}": value for name, value in metrics_of(chance).items()}
        return metrics_of(scores) | by_chance, {}

    def score_files(self, predictions: pa.Table, examples: pa.Table) -> Mapping[str, bytes]:
        """See :class:`Task`: a table of the classes."""
        return {CLASSES: class_table(*self._scored(predictions, examples))}

    def is_right(self, label: str, given: Sequence[str]) -> bool | None:
        """See :class:`Task`: an image has many objects, some of which are found."""
        return None

    def submission(self, predictions: pa.Table) -> bytes | None:
        """Return COCO's file of results; without ``categories`` the ids of classes are unknown."""
        if self.categories is None:
            return None
        classes = {name: id_ for id_, name in read_categories(Path(self.categories)).items()}
        return json.dumps(list(results_of(predictions, classes, by_name=True))).encode()

    def _scored(
        self, predictions: pa.Table, examples: pa.Table
    ) -> tuple[dict[str, CocoScore], Truth]:
        classes = numbered_classes(predictions, examples)
        truth, results = truth_of(examples, classes), list(results_of(predictions, classes))
        return scores_of(truth, results, with_masks=self.masks), truth

    def _views(self, image: Tensor, seen: Size) -> list[ScaledImage]:
        """Return an image at all sizes, made with its padding from its largest one."""
        largest, views = image.shape[1], []
        for size in self.test_sizes or (largest,):
            square = (size, size)
            scaled = F.interpolate(image[None], size=square, mode="bilinear", antialias=True)[0]
            height, width = (max(round(side * size / largest), 1) for side in seen)
            views.append(ScaledImage(scaled, (height, width), flipped=False))
            if self.test_flip:
                mirrored = scaled.clone()
                mirrored[:, :height, :width] = scaled[:, :height, :width].flip(2)
                views.append(ScaledImage(mirrored, (height, width), flipped=True))
        return views


def _prediction(
    found: Detections, seen: Size, annotated: Size, labels: Sequence[str]
) -> Prediction:
    """Return detections with boxes and masks in pixels of the annotated image."""
    height, width = annotated
    scale = found.boxes.new_tensor([width / seen[1], height / seen[0]] * 2)
    boxes = found.boxes.float() * scale
    masks: list[str] = []
    if found.masks is not None:
        parts = pasted_parts(found.masks.float().cpu(), boxes.cpu(), height, width)
        masks = [text_of_part(part.numpy(), x, y, width, height) for part, x, y in parts]
    corner, side = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    return Prediction(
        [labels[number] for number in found.classes.tolist()],
        found.scores.tolist(),
        boxes=torch.cat([corner, side], dim=1).tolist(),
        masks=masks,
        size=(width, height),
    )
