"""Image classification: retrieval among the texts of the classes, or a linear head.

``form: dual`` is the paper's: an image is compared with the texts of all classes (section 3.2.4).
``form: linear`` is the released one: a linear layer on the mean of the patches. With several
labels for an image, each class is judged for itself (``multi_label``).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, ClassVar, Final, Literal, Self

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from model import BEiT3
from model.finetuning.class_texts import ForClassTexts
from model.finetuning.mixing import Mix, Mixing, mix_images, mix_targets
from model.finetuning.task_networks import ForImageClassification, TaskNetwork
from orchestration.params import EXTERNAL_FILE
from pipelines.finetune.batch import Ints, TaskBatch
from pipelines.finetune.class_names import class_texts
from pipelines.finetune.class_scores import (
    MOST_LABELS,
    accuracies,
    best_labels,
    class_losses,
    label_numbers,
    sorted_labels,
)
from pipelines.finetune.task import Prediction, Task
from pipelines.finetune.texts import TextEncoder

MIX_GROUP: Final = 4
"Consecutive slots whose images are mixed with each other."
_SCORE: Final = "score"


class ImageClassification(Task):
    """ImageNet, and folders or lists of images with own classes."""

    metric: ClassVar = _SCORE
    num_images: ClassVar = 1
    num_texts: ClassVar = (0, 0)
    crop_mode: ClassVar = "center"

    name: Literal["image_classification"]
    "Image classification."
    form: Literal["dual", "linear"] = "dual"
    "Compare images with the texts of the classes, or score classes by a linear layer."
    class_names: Annotated[str | None, EXTERNAL_FILE] = None
    "Path of a file with a label, a tab and the text of its class in each line."
    wordnet_names: bool = False
    "Whether labels are WordNet ids, whose names are the texts of the classes."
    prompt: str = "{}"
    "What the network reads of a class, with {} for its text."
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    "Part of each target that is spread over all classes."
    multi_label: bool = False
    "Whether an image may have several labels, each judged for itself; needs the linear form."
    mixup: float = Field(default=0, ge=0)
    "Parameter of mixup's beta distribution in the linear form; 0 mixes no images so."
    cutmix: float = Field(default=0, ge=0)
    "Parameter of CutMix's beta distribution in the linear form; 0 copies no boxes."

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.multi_label and self.form == "dual":
            raise ValueError("multi_label needs form = linear; set it")
        if self.class_names is not None and self.wordnet_names:
            raise ValueError("class_names and wordnet_names exclude each other; give one of them")
        if (self.mixup or self.cutmix) and (self.multi_label or self.form == "dual"):
            raise ValueError("mixup and cutmix need form = linear and multi_label = false")
        if "{}" not in self.prompt:
            raise ValueError(f"prompt = {self.prompt!r} has no {{}}, where the class stands")
        return self

    @property
    def final_norm(self) -> bool:
        """See :class:`Task`."""
        return self.form == "dual"

    @property
    def metric_names(self) -> Sequence[str]:
        """See :class:`Task`."""
        own = ["mean_average_precision"] if self.multi_label else ["accuracy", "accuracy_top5"]
        return (*own, _SCORE)

    def requires(self) -> str | None:
        """See :class:`Task`."""
        try:
            if self.class_names is not None:
                class_texts((), self.class_names, wordnet=False)
        except (ValueError, OSError) as error:
            return f"task.class_names: {error}"
        return None

    def label_names(self, splits: Mapping[str, pa.Table]) -> list[str]:
        """See :class:`Task`; the number of a class is its rank among the sorted labels."""
        names = sorted_labels(splits["train"])
        if not self.multi_label:
            for example, some in zip(
                *(splits["train"][c].to_pylist() for c in ("example_id", "labels")), strict=True
            ):
                if len(some) > 1:
                    raise ValueError(
                        f"example {example} of the split train has {len(some)} labels; set "
                        "task.multi_label=true and task.form=linear"
                    )
        class_texts(names, self.class_names, wordnet=self.wordnet_names)
        return names

    def network(self, encoder: BEiT3, labels: Sequence[str], texts: TextEncoder) -> TaskNetwork:
        """See :class:`Task`."""
        if self.form == "linear":
            return ForImageClassification(encoder, len(labels))
        names = class_texts(labels, self.class_names, wordnet=self.wordnet_names)
        return ForClassTexts(encoder, *texts([[self.prompt.replace("{}", n)] for n in names]))

    def targets(self, rows: pa.Table, labels: Mapping[str, int]) -> Tensor:
        """Return the number of each example's class, (B,) long, or its labels, (B, K) float."""
        if not self.multi_label:
            return label_numbers(rows, labels)
        targets = torch.zeros(rows.num_rows, len(labels))
        for target, some in zip(targets, rows["labels"].to_pylist(), strict=True):
            target[[labels[label] for label in some if label in labels]] = 1.0
        return targets

    def mixes(self, image_size: int, seed: int, step: int, slots: Ints) -> Sequence[Mix]:
        """See :class:`Task`."""
        if not (self.mixup or self.cutmix):
            return ()
        return Mixing(self.mixup, self.cutmix, MIX_GROUP).draw(image_size, seed, step, slots)

    def losses(self, network: TaskNetwork, batch: TaskBatch) -> dict[str, Tensor]:
        """Cross-entropy, summed over the examples; for several labels, over the classes too."""
        assert batch.images is not None and batch.targets is not None
        images = batch.images[:, 0]
        if batch.mixes:
            scores = network(mix_images(images, batch.mixes), batch.scale(0)).float()
            targets = mix_targets(batch.targets, scores.shape[1], batch.mixes, self.label_smoothing)
            loss = F.cross_entropy(scores, targets, reduction="sum")
            return {"loss": loss, "accuracy": (scores.argmax(1) == targets.argmax(1)).sum()}
        scores = network(images, batch.scale(0))
        if isinstance(network, ForClassTexts):
            loss = network.loss(scores, batch.targets, self.label_smoothing)
            return {"loss": loss, "accuracy": (scores.argmax(1) == batch.targets).sum()}
        if not self.multi_label:
            return class_losses(scores, batch, self.label_smoothing)
        loss = F.binary_cross_entropy_with_logits(scores.float(), batch.targets, reduction="sum")
        return {"loss": loss}

    def backward(
        self,
        network: TaskNetwork,
        batches: Sequence[TaskBatch],
        num_examples: int,
        autocast: torch.autocast,
    ) -> dict[str, Tensor]:
        """See :class:`Task`; the texts of the classes are encoded once for all micro-batches."""
        if not isinstance(network, ForClassTexts):
            return super().backward(network, batches, num_examples, autocast)
        given = [
            (partial(network.encode_images, batch.images[:, 0], batch.scale(0)), batch.targets)
            for batch in batches
            if batch.images is not None and batch.targets is not None
        ]
        return network.backward(given, num_examples, self.label_smoothing, autocast)

    def predict(
        self,
        network: TaskNetwork,
        batch: TaskBatch,
        labels: Sequence[str],
        most: int = MOST_LABELS,
    ) -> Iterator[Prediction]:
        """Yield the ``most`` best classes; with several labels, all by their probability."""
        assert batch.images is not None
        scores = network(batch.images[:, 0])
        if not self.multi_label:
            yield from best_labels(scores, labels, most)
            return
        values, order = scores.float().sigmoid().sort(dim=1, descending=True, stable=True)
        for some, numbers in zip(values.tolist(), order.tolist(), strict=True):
            yield Prediction([labels[i] for i in numbers], some)

    def score(self, predictions: pa.Table, examples: pa.Table) -> dict[str, float]:
        """Return top-1 and top-5 accuracy, or the mean average precision of several labels."""
        if not self.multi_label:
            found = accuracies(predictions, examples)
            return found | {_SCORE: found["accuracy"]}
        found = _average_precision(predictions, examples)
        return found | {_SCORE: found["mean_average_precision"]}


def _average_precision(predictions: pa.Table, examples: pa.Table) -> dict[str, float]:
    """Return the mean over the classes that occur of the area under precision and recall.

    A class that the network does not know has the score 0 in every image.
    """
    from sklearn.metrics import average_precision_score

    columns = (predictions["labels"], predictions["scores"], examples["labels"])
    rows = [row for row in zip(*(c.to_pylist() for c in columns), strict=True) if row[2]]
    names = sorted({name for row in rows for name in row[2]})
    found = [dict(zip(row[0], row[1], strict=True)) for row in rows]
    values = np.array([[scores.get(name, 0.0) for name in names] for scores in found])
    true = np.array([[name in row[2] for name in names] for row in rows])
    mean = (
        float(average_precision_score(true, values, average="macro"))
        if np.isfinite(values).all()
        else math.nan  # which is never the best
    )
    return {
        "mean_average_precision": mean,
        "chance/mean_average_precision": float(true.mean(0).mean()),
    }
