"""What a downstream task is: one class with its data, head, loss, prediction and metric.

A task is chosen by ``task: {name: …}`` in the recipe and has its own parameters there. The stages
of fine-tuning know nothing else of it, so a new task is a file in ``tasks/``, the reader of its
files in ``formats/``, and a line in each registry.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import torch
from torch import Tensor

from model import BEiT3, BEiT3Config
from model.finetuning.mixing import Mix
from model.finetuning.task_networks import TaskNetwork
from orchestration.params import StageParams
from pipelines.finetune.batch import Ints, TaskBatch
from pipelines.finetune.texts import TextEncoder
from pipelines.finetune.views import CropMode


@dataclass(frozen=True)
class Prediction:
    """What a network says of one example; see ``dataprep.schemas.PREDICTIONS``."""

    labels: Sequence[str] = ()
    scores: Sequence[float] = ()
    features: Sequence[Sequence[float]] = ()
    boxes: Sequence[Sequence[float]] = ()
    masks: Sequence[str] = ()
    size: Sequence[int] = ()
    label_map: bytes | None = None
    token_ids: Sequence[Sequence[int]] = ()
    "Generated texts, best first: their words become ``labels``."


@dataclass(frozen=True)
class Draw:
    """What the random changes of a training's micro-batch depend on."""

    seed: int
    step: int
    slots: Ints
    "(B,) of the samples in the step's batch."
    flip: bool
    "Whether half of the images are mirrored."


class Task(StageParams):
    """One downstream task."""

    metric: ClassVar[str]
    "The number of :meth:`score` by which the best weights are chosen; larger is better."
    num_images: ClassVar[int]
    "Images of an example."
    num_texts: ClassVar[tuple[int, int | None]]
    "Fewest and most texts of an example; None sets no limit."
    needs_labels: ClassVar[bool] = True
    "Whether examples of the training split must have labels."
    truth_name: ClassVar[str] = "label"
    "What annotators give for an example, in a message."
    num_passes: ClassVar[int] = 1
    "How often the encoder sees an example in one step; each has its own stochastic depth."
    crop_mode: ClassVar[CropMode] = "squash"
    "How an evaluated image gets its square form."
    by_text: ClassVar[bool] = False
    "Whether a training sample is one text of an example rather than the example."
    reads_texts: ClassVar[bool] = True
    "Whether a prediction reads the texts of an example, rather than being compared with them."
    columns: ClassVar[tuple[str, ...]] = ("example_id", "texts", "labels", "main_label")
    "Columns of an example, its images apart, that are read to train, predict and score."
    is_dense: ClassVar[bool] = False
    "Whether targets move with the pixels of an image: :meth:`dense_batch` then makes both."
    word_head: ClassVar[bool] = False
    "Whether the network begins with the head of pretraining that predicts words."
    submission_name: ClassVar[str] = "submission.json"
    "Name of the file of :meth:`submission`."
    has_nearest: ClassVar[bool] = False
    "Whether the score is compared with that of the texts of the nearest training images."

    name: str
    "Name of the task."

    @property
    def final_norm(self) -> bool:
        """Return whether the network has a LayerNorm after its last block, as released."""
        return True

    @property
    @abstractmethod
    def metric_names(self) -> Sequence[str]:
        """Return the names of the metrics of :meth:`score`, without those of chance."""

    @property
    def max_text_tokens(self) -> int | None:
        """Return the most tokens of a training text, or None for those of the network."""
        return None

    def requires(self) -> str | None:
        """Return what is wrong with a file that the parameters name, or is missing, or None."""
        return None

    def unfit_input(self, config: BEiT3Config) -> str | None:
        """Return why the task cannot take a network or images of its size, or None."""
        return None

    @abstractmethod
    def label_names(self, splits: Mapping[str, pa.Table]) -> list[str]:
        """Return the labels that the network chooses from, in the order of its scores.

        Args:
            splits: :attr:`columns` of the examples of ``train`` and, if there is one, ``dev``.

        Raises:
            ValueError: the examples have no usable labels.
        """

    @abstractmethod
    def network(self, encoder: BEiT3, labels: Sequence[str], texts: TextEncoder) -> TaskNetwork:
        """Return the network of the task around a pretrained encoder.

        Args:
            encoder: of a configuration with :attr:`final_norm`.
            labels: what :meth:`label_names` returned.
            texts: encodes texts for the network, such as names of classes.
        """

    @abstractmethod
    def targets(self, rows: pa.Table, labels: Mapping[str, int]) -> Tensor | None:
        """Return what the network should predict for examples, or None if nothing of its own.

        Args:
            rows: columns of ``dataprep.schemas.EXAMPLES`` without ``images``.
            labels: number of each of :meth:`label_names`.
        """

    def dense_batch(
        self,
        batch: TaskBatch,
        rows: pa.Table,
        labels: Mapping[str, int],
        image_size: int,
        draw: Draw | None,
    ) -> TaskBatch:
        """Return a batch with pixels and targets; called if :attr:`is_dense`.

        Args:
            batch: without images.
            rows: columns of ``dataprep.schemas.EXAMPLES``, images included.
            labels: number of each of :meth:`label_names`.
            image_size: side of the network's input in pixels.
            draw: of a training batch; None builds one of an evaluation.
        """
        raise NotImplementedError

    def is_used(self, rows: pa.Table, labels: Mapping[str, int]) -> Sequence[bool]:
        """Return for each training example whether it is trained on: it has what to predict."""
        return [bool(some) or not self.needs_labels for some in rows["labels"].to_pylist()]

    def drawn(
        self, batch: TaskBatch, texts: TextEncoder, seed: int, step: int, slots: Ints
    ) -> TaskBatch:
        """Return a training's micro-batch with what the task draws, as a function of the rest.

        Args:
            batch: on the CPU.
            texts: what encoded the texts.
            seed: of the draws.
            step: of the training.
            slots: (B,) of the examples in the global batch.
        """
        return batch

    def mixes(self, image_size: int, seed: int, step: int, slots: Ints) -> Sequence[Mix]:
        """Return how images of a training's micro-batch are mixed with each other."""
        return ()

    @abstractmethod
    def losses(self, network: TaskNetwork, batch: TaskBatch) -> dict[str, Tensor]:
        """Return sums over the examples: ``loss`` with its gradient, others as ``accuracy``."""

    def backward(
        self,
        network: TaskNetwork,
        batches: Sequence[TaskBatch],
        num_examples: int,
        autocast: torch.autocast,
    ) -> dict[str, Tensor]:
        """Add this worker's part of the gradient of the mean loss; return its sums.

        Args:
            network: of :meth:`network`.
            batches: this worker's micro-batches, on its device.
            num_examples: examples in the batch of all workers.
            autocast: precision of the forward.
        """
        sums: dict[str, Tensor] = {}
        with autocast:
            for batch in batches:
                found = self.losses(network, batch)
                with torch.autocast(found["loss"].device.type, enabled=False):
                    (found["loss"] / num_examples).backward()
                for name, value in found.items():  # on the device: nothing waits for it
                    sums[name] = sums.get(name, 0) + value.detach().double()
        return sums

    @abstractmethod
    def predict(
        self, network: TaskNetwork, batch: TaskBatch, labels: Sequence[str]
    ) -> Iterator[Prediction]:
        """Yield the prediction for each example of a batch; no gradient is needed."""

    @abstractmethod
    def score(self, predictions: pa.Table, examples: pa.Table) -> dict[str, float]:
        """Return the metrics of a split whose examples have labels.

        Args:
            predictions: rows of ``dataprep.schemas.PREDICTIONS`` of all examples, by row number.
            examples: the same examples without ``images``, in the same order.
        """

    def can_score(self, examples: pa.Table) -> bool:
        """Return whether a split can be scored: whether some of its examples have labels."""
        return not self.needs_labels or any(examples["labels"].to_pylist())

    def full_score(
        self, predictions: pa.Table, examples: pa.Table
    ) -> tuple[dict[str, float], dict[str, str]]:
        """Return the metrics for the stage ``score``, and why others are left out, by name.

        They are those of :meth:`score` unless some take longer than a training may wait for. The
        arguments are the same.
        """
        return self.score(predictions, examples), {}

    def score_files(self, predictions: pa.Table, examples: pa.Table) -> Mapping[str, bytes]:
        """Return files beside the metrics of a split: their contents by ``<name>.<ending>``.

        The arguments are those of :meth:`score`.
        """
        return {}

    def is_right(self, label: str, given: Sequence[str]) -> bool | None:
        """Return whether a predicted label is right, for a page; None if labels are no classes.

        Args:
            label: the best one.
            given: labels of the example as annotated, at least one.
        """
        return label in given

    def submission(self, predictions: pa.Table) -> bytes | None:
        """Return the file that the task's evaluation server takes, or None if there is none.

        Raises:
            ValueError: a predicted class is none of those that the server knows.
        """
        return None
