"""Visual question answering: one of a fixed list of answers to a question about an image.

Answers are chosen as published for VQAv2: normalized answers that the annotators agree on,
with at least nine occurrences, in the order of their first one. The target of an answer is the
official accuracy that it would get. Annotators' answers are compared with the list as they stand.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import pyarrow as pa
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from dataprep.tasks.example import id_in_file
from model import BEiT3
from model.finetuning.task_networks import ForVisualQuestionAnswering, TaskNetwork
from model.metrics.vqa import accuracy, agreement, normalized
from orchestration.params import EXTERNAL_FILE
from pipelines.finetune.answer_lists import read_answers
from pipelines.finetune.batch import TaskBatch
from pipelines.finetune.class_scores import MOST_LABELS, answered
from pipelines.finetune.task import Prediction, Task
from pipelines.finetune.texts import TextEncoder


class VisualQuestionAnswering(Task):
    """VQAv2, and own questions with a list of answers."""

    metric: ClassVar = "accuracy"
    num_images: ClassVar = 1
    num_texts: ClassVar = (1, 1)

    name: Literal["vqa"]
    "Visual question answering."
    answers: Annotated[str | None, EXTERNAL_FILE] = None
    "Path of the list of answers, as JSON lines (answer2label.txt) or one per line; null makes it."
    min_occurrences: int = Field(default=9, ge=1)
    "Number of questions that must have an answer before it is in the list that is made."

    @property
    def final_norm(self) -> bool:
        """See :class:`Task`."""
        return False

    @property
    def metric_names(self) -> Sequence[str]:
        """See :class:`Task`."""
        return ("accuracy",)

    def requires(self) -> str | None:
        """See :class:`Task`."""
        try:
            if self.answers is not None:
                read_answers(self.answers)
        except (ValueError, OSError) as error:
            return f"task.answers: {error}"
        return None

    def label_names(self, splits: Mapping[str, pa.Table]) -> list[str]:
        """See :class:`Task`."""
        if self.answers is not None:
            return read_answers(self.answers)
        counts: Counter[str] = Counter()
        for table in splits.values():
            rows = zip(table["labels"].to_pylist(), table["main_label"].to_pylist(), strict=True)
            counts.update(normalized(main or most_frequent(all_)) for all_, main in rows if all_)
        # The published list has the empty answer too, to which an article alone is normalized.
        names = [name for name, number in counts.items() if number >= self.min_occurrences]
        if not names:
            raise ValueError(
                f"no answer occurs {self.min_occurrences} times; lower task.min_occurrences, or "
                "give task.answers"
            )
        return names

    def network(self, encoder: BEiT3, labels: Sequence[str], texts: TextEncoder) -> TaskNetwork:
        """See :class:`Task`."""
        return ForVisualQuestionAnswering(encoder, len(labels))

    def is_used(self, rows: pa.Table, labels: Mapping[str, int]) -> list[bool]:
        """See :class:`Task`: a question of which no answer is in the list is left out."""
        return [any(label in labels for label in some) for some in rows["labels"].to_pylist()]

    def targets(self, rows: pa.Table, labels: Mapping[str, int]) -> Tensor:
        """Return the target of every answer, (B, answers) float."""
        targets = torch.zeros(rows.num_rows, len(labels))
        for target, annotated in zip(targets, rows["labels"].to_pylist(), strict=True):
            for label, number in Counter(annotated).items():
                if label in labels:
                    target[labels[label]] = agreement(number, len(annotated))
        return targets

    def losses(self, network: TaskNetwork, batch: TaskBatch) -> dict[str, Tensor]:
        """Binary cross-entropy of every answer, summed over answers."""
        scores = self._scores(network, batch)
        assert batch.targets is not None
        loss = F.binary_cross_entropy_with_logits(scores.float(), batch.targets, reduction="sum")
        chosen = batch.targets.gather(1, scores.argmax(1, keepdim=True))
        return {"loss": loss, "accuracy": chosen.sum()}

    def predict(
        self,
        network: TaskNetwork,
        batch: TaskBatch,
        labels: Sequence[str],
        most: int = MOST_LABELS,
    ) -> Iterator[Prediction]:
        """See :class:`Task`; ``most`` answers are kept."""
        best = self._scores(network, batch).float().topk(min(most, len(labels)), dim=1)
        values = best.values.sigmoid().tolist()  # several may be rounded to 1
        for indices, some in zip(best.indices.tolist(), values, strict=True):
            yield Prediction([labels[i] for i in indices], some)

    def score(self, predictions: pa.Table, examples: pa.Table) -> dict[str, float]:
        """Return the official accuracy, and that of the most frequent answer."""
        pairs = [(found[0], given) for found, given in answered(predictions, examples)]
        guess = Counter(normalized(most_frequent(given)) for _, given in pairs).most_common(1)[0][0]
        return {
            "accuracy": sum(accuracy(*pair) for pair in pairs) / len(pairs),
            "chance/accuracy": sum(accuracy(guess, given) for _, given in pairs) / len(pairs),
        }

    def is_right(self, label: str, given: Sequence[str]) -> bool:
        """See :class:`Task`: the answer's target is over a half."""
        return agreement(given.count(label), len(given)) > 0.5

    def submission(self, predictions: pa.Table) -> bytes:
        """Return the list of answers that the evaluation server takes."""
        rows = zip(
            predictions["example_id"].to_pylist(), predictions["labels"].to_pylist(), strict=True
        )
        answers = [{"question_id": id_in_file(name), "answer": labels[0]} for name, labels in rows]
        return json.dumps(answers).encode()

    def _scores(self, network: TaskNetwork, batch: TaskBatch) -> Tensor:
        assert batch.images is not None
        scores: Tensor = network(
            batch.images[:, 0], batch.text_ids, batch.text_padding, batch.scale(0)
        )
        return scores


def most_frequent(answers: Sequence[str]) -> str:
    """Return the most frequent answer, of equally frequent ones the first."""
    return Counter(answers).most_common(1)[0][0]
