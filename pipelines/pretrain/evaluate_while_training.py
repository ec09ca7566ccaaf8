"""Evaluation of a pretraining's checkpoints while it goes on, in a Ray task beside its workers.

The task takes what the section ``evaluate`` reserves, if the cluster has it free; else the
checkpoint is left out. Nothing here changes the training or is waited for by a step. The results
go to MLflow under the checkpoint's step, as ``held_out/`` and the names of the stage ``evaluate``.
"""

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import pyarrow as pa

from model.training.batch import Stream
from orchestration import Context, Dataset, Slice
from orchestration.checkpoint_files import step_of
from orchestration.reporting.attempts import error_words
from orchestration.resources import has_room_now
from orchestration.storage.store import Store
from pipelines.pretrain.checkpoints import network_of
from pipelines.pretrain.evaluation.numbers import evaluation_numbers
from pipelines.pretrain.evaluation.params import Params
from pipelines.pretrain.evaluation.predictor import Predictor
from pipelines.pretrain.evaluation.slices import EvaluationSlices, evaluation_slices
from pipelines.pretrain.samples import FeedParams

logger = logging.getLogger(__name__)

PREFIX: Final = "held_out/"
_ASK_EVERY_S: Final = 1.0
_LAST_S: Final = 60.0
"Time that an evaluation has left when the training ends."
_NICENESS: Final = 10


@dataclass(frozen=True)
class Evaluation:
    """What the task evaluates a checkpoint with."""

    params: Params
    "The recipe's section ``evaluate``."
    feed: FeedParams
    seed: int
    inputs: Mapping[Stream, Dataset]
    "Token dataset of each stream, with its table of held-out rows."
    text: Dataset
    "Output of the stage ``text_tokenizer``."


class CheckpointEvaluator:
    """Evaluates the checkpoints at multiples of a number of steps, one at a time."""

    def __init__(
        self, context: Context, evaluation: Evaluation, every: int, steps: int, done: int = 0
    ) -> None:
        """Prepare.

        Args:
            context: of the training stage.
            evaluation: how to evaluate.
            every: number of steps between evaluations.
            steps: number of steps of the training; the last checkpoint has a stage of its own.
            done: number of steps that are done already.
        """
        self._context, self._evaluation = context, evaluation
        self._every, self._steps, self._seen = every, steps, done
        self._slices: EvaluationSlices | None = None

    def __call__(self, checkpoint: Store, ended: threading.Event) -> None:
        """Evaluate a checkpoint if it is due; a failure is a warning."""
        step = step_of(checkpoint)
        self._say_removed(step)
        if step % self._every or step == self._steps:
            return
        try:
            if missing := self._missing():
                self._say(step, f"not evaluated, as {missing}")
                return
            numbers = self._numbers(checkpoint, ended)
        except Exception as error:
            words = error_words(getattr(error, "cause", None) or error)
            logger.warning("the evaluation of step %d failed", step, exc_info=error)
            self._say(step, f"not evaluated: {words}")
            return
        if numbers is None:
            self._say(step, "not evaluated, as the training has ended meanwhile")
            return
        log = self._context.log
        log.metrics({f"{PREFIX}{name}": value for name, value in numbers.items()}, step)
        log.flush()
        shown = (f"{name} {value:.3g}" for name, value in numbers.items() if _is_shown(name))
        self._say(step, f"held-out rows: {', '.join(shown)}")

    def _say_removed(self, step: int) -> None:
        """Say which evaluations before a checkpoint have become impossible."""
        first = (self._seen // self._every + 1) * self._every
        if removed := range(first, step, self._every):
            which = f"{removed[0]}" if len(removed) == 1 else f"{removed[0]} to {removed[-1]}"
            self._say(
                which,
                "not evaluated, as the checkpoint was removed before its turn; a larger "
                "train.keep_checkpoints keeps it longer",
            )
        self._seen = step

    def _missing(self) -> str | None:
        """Return what the cluster lacks at present, or None."""
        params = self._evaluation.params
        if has_room_now(params.resources):
            return None
        wanted = f"evaluate.cpus_per_actor = {params.cpus_per_actor:g}"
        if params.gpus_per_actor:
            wanted += f" and evaluate.gpus_per_actor = {params.gpus_per_actor:g}"
        return f"no node has {wanted} free beside the training"

    def _numbers(self, checkpoint: Store, ended: threading.Event) -> dict[str, float] | None:
        """Return the numbers of a checkpoint, or None if the training ends before."""
        import ray

        made, params = self._evaluation, self._evaluation.params
        if self._slices is None:
            self._slices = evaluation_slices(made.inputs, params, made.seed)
        # A process of its own, which frees its GPU with its end. It may be repeated, so that Ray's
        # memory monitor ends it rather than the training.
        task = ray.remote(max_calls=1, max_retries=1)(_evaluate_at_low_priority).options(
            num_cpus=params.cpus_per_actor, num_gpus=params.gpus_per_actor
        )
        running = task.remote(checkpoint, made, self._slices)
        left = _LAST_S
        while left > 0:
            done, _ = ray.wait([running], timeout=_ASK_EVERY_S)
            if done:
                numbers: dict[str, float] = ray.get(running)
                return numbers
            if self._context.stopping.is_set():
                break
            if ended.is_set():
                left -= _ASK_EVERY_S
        ray.cancel(running, force=True)
        return None

    def _say(self, step: int | str, words: str) -> None:
        name = self._context.stage.name
        self._context.progress.console.print(f"{name}: step {step}, {words}", highlight=False)


def _evaluate_at_low_priority(
    checkpoint: Store, evaluation: Evaluation, slices: EvaluationSlices
) -> dict[str, float]:
    os.nice(_NICENESS)
    return evaluate_checkpoint(checkpoint, evaluation, slices)


def evaluate_checkpoint(
    checkpoint: Store, evaluation: Evaluation, slices: EvaluationSlices
) -> dict[str, float]:
    """Return the numbers of a checkpoint.

    Raises:
        StoreError: the checkpoint has been removed meanwhile, or a store cannot be read.
    """
    import ray.train

    folder = ray.train.Checkpoint(checkpoint.native_path(), checkpoint.file_system())
    with folder.as_directory() as local:
        predict = Predictor(
            evaluation.params,
            evaluation.feed,
            evaluation.seed,
            partial(network_of, Path(local)),
            evaluation.text,
            evaluation.inputs,
        )

    results = {slice_.id: predict(slice_).tables for slice_ in slices.measured}

    def read(some: Sequence[Slice], table: str) -> pa.Table:
        return pa.concat_tables([results[slice_.id][table] for slice_ in some])

    return evaluation_numbers(slices, read, evaluation.params, evaluation.seed)


def _is_shown(name: str) -> bool:
    is_loss = name.startswith("loss/") and name.count("/") == 1
    return is_loss or name in ("accuracy/knn", "grounding/words/gap")
