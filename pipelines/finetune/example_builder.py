"""Rows of a split → the tensors of a micro-batch, for training and for evaluation.

Everything that is drawn is a pure function of (seed, step, slot).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa
import torch

from dataprep.images import Pixels
from model import BEiT3Config
from model.training import randomness
from model.training.stochastic_depth import residual_scale
from pipelines.finetune.batch import Ints, TaskBatch
from pipelines.finetune.task import Draw, Task
from pipelines.finetune.texts import TextEncoder
from pipelines.finetune.views import AugmentParams, EvaluationViews, TrainingViews

_VIEWS, _DEPTH, _MIX, _TASK = range(4)
"Purposes of random numbers; each purpose has its own seed, so that draws are independent."


class ExampleBuilder:
    """Builds the micro-batches of a task."""

    def __init__(
        self, task: Task, config: BEiT3Config, texts: TextEncoder, labels: Sequence[str]
    ) -> None:
        """Prepare.

        Args:
            task: the task.
            config: of the network.
            texts: encodes texts for the network.
            labels: labels in the order of the network's scores.

        Raises:
            ValueError: the task cannot take images of the network's size.
        """
        if problem := task.unfit_input(config):
            raise ValueError(problem)
        self.task, self.config, self.texts = task, config, texts
        self.numbers: Mapping[str, int] = {label: i for i, label in enumerate(labels)}
        self.columns = [*(["images"] if task.num_images else []), *task.columns]
        self._pixel_mean = torch.tensor(config.pixel_mean)
        self._pixel_std = torch.tensor(config.pixel_std)

    def training(
        self, augment: AugmentParams, drop_path: float, seed: int
    ) -> "Callable[[pa.Table, Ints, int, Ints, Ints], TaskBatch]":
        """Return a function (rows, row numbers, step, slots, texts) → micro-batch.

        Args:
            augment: how images are changed.
            drop_path: stochastic depth rate of the last block.
            seed: of all draws.
        """
        views_seed = int(randomness.bits(seed, _VIEWS))
        views = TrainingViews(augment, self.config.image_size, views_seed)
        depth_seed, mix_seed, task_seed = (
            int(randomness.bits(seed, use)) for use in (_DEPTH, _MIX, _TASK)
        )

        def build(rows: pa.Table, numbers: Ints, step: int, slots: Ints, texts: Ints) -> TaskBatch:
            scales = [
                residual_scale(
                    self.config.depth, drop_path, int(randomness.bits(depth_seed, i)), step, slots
                )
                for i in range(self.task.num_passes)
            ]
            scale = [torch.from_numpy(each) for each in scales if each is not None]
            if self.task.is_dense:
                batch = self._dense(rows, numbers, Draw(views_seed, step, slots, augment.flip))
            else:
                images = None
                if self.task.num_images:
                    images = views(rows["images"].to_pylist(), _names(rows), step, slots)
                chosen = rows["texts"].to_pylist()
                if self.task.by_text:
                    chosen = [[some[i]] for some, i in zip(chosen, texts.tolist(), strict=True)]
                batch = self._batch(rows, numbers, images, chosen)
            batch = replace(batch, slots=torch.from_numpy(slots), step=step)
            return replace(
                self.task.drawn(batch, self.texts, task_seed, step, slots),
                mixes=self.task.mixes(self.config.image_size, mix_seed, step, slots),
                residual_scale=torch.stack(scale, 2) if scale else None,
            )

        return build

    def evaluation(self, rows: pa.Table, numbers: Ints) -> TaskBatch:
        """Return rows as a micro-batch of an evaluation, with all texts that the task reads."""
        if self.task.is_dense:
            return self._dense(rows, numbers, None)
        images = None
        if self.task.num_images:
            views = EvaluationViews(self.config.image_size, self.task.crop_mode)
            images = views(rows["images"].to_pylist(), _names(rows))
        texts = rows["texts"].to_pylist()
        if not self.task.reads_texts:
            return self._batch(rows, numbers, images, ())
        if not self.task.by_text:
            return self._batch(rows, numbers, images, texts)
        batch = self._batch(rows, numbers, images, [[text] for some in texts for text in some])
        return replace(batch, text_counts=torch.tensor([len(some) for some in texts]))

    def _dense(self, rows: pa.Table, numbers: Ints, draw: Draw | None) -> TaskBatch:
        batch = TaskBatch(numbers, pixel_mean=self._pixel_mean, pixel_std=self._pixel_std)
        return self.task.dense_batch(batch, rows, self.numbers, self.config.image_size, draw)

    def _batch(
        self,
        rows: pa.Table,
        numbers: Ints,
        images: Pixels | None,
        texts: Sequence[Sequence[str]],
    ) -> TaskBatch:
        ids = padding = None
        if texts and self.task.num_texts != (0, 0):
            ids, padding = self.texts(texts)
        return TaskBatch(
            numbers,
            pixels=None if images is None else torch.from_numpy(images),
            pixel_mean=self._pixel_mean,
            pixel_std=self._pixel_std,
            text_ids=ids,
            text_padding=padding,
            targets=self.task.targets(rows.select(self.task.columns), self.numbers),
        )


def _names(rows: pa.Table) -> list[str]:
    names: list[str] = rows["example_id"].to_pylist()
    return names
