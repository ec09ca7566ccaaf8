"""Retrieval between images and captions: two encodings, compared by their cosine.

Trained by the symmetric contrastive loss over the global batch (paper, appendix A). Every caption
is a training sample; another caption of the same image counts as a wrong one, as in the released
code.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import pyarrow as pa
import torch
from torch import Tensor

from model import BEiT3
from model.finetuning.contrastive import contrastive_loss
from model.finetuning.feature_cache import backward_in_chunks
from model.finetuning.task_networks import ForRetrieval, TaskNetwork
from model.metrics.retrieval import recall_names, retrieval_recalls
from pipelines.finetune.batch import TaskBatch
from pipelines.finetune.task import Prediction, Task
from pipelines.finetune.texts import TextEncoder

_IMAGE, _TEXT = range(2)
"Passes of the encoder."


class Retrieval(Task):
    """COCO and Flickr30K retrieval, intermediate contrastive tuning, and own captions."""

    metric: ClassVar = "mean_recall"
    num_images: ClassVar = 1
    num_texts: ClassVar = (1, None)
    needs_labels: ClassVar = False
    num_passes: ClassVar = 2
    by_text: ClassVar = True
    truth_name: ClassVar = "caption"

    name: Literal["retrieval"]
    "Retrieval between images and captions."

    @property
    def metric_names(self) -> Sequence[str]:
        """See :class:`Task`."""
        return (*recall_names(), "mean_recall")

    def label_names(self, splits: Mapping[str, pa.Table]) -> list[str]:
        """See :class:`Task`: there are none."""
        return []

    def network(self, encoder: BEiT3, labels: Sequence[str], texts: TextEncoder) -> TaskNetwork:
        """See :class:`Task`."""
        return ForRetrieval(encoder)

    def targets(self, rows: pa.Table, labels: Mapping[str, int]) -> None:
        """See :class:`Task`: the partner in the batch is the target."""

    def losses(self, network: TaskNetwork, batch: TaskBatch) -> dict[str, Tensor]:
        """Return the contrastive loss of one micro-batch for itself."""
        assert isinstance(network, ForRetrieval)
        features = _encode(network, batch)
        return {"loss": contrastive_loss(*features, network.logit_scale) * len(batch)}

    def backward(
        self,
        network: TaskNetwork,
        batches: Sequence[TaskBatch],
        num_examples: int,
        autocast: torch.autocast,
    ) -> dict[str, Tensor]:
        """See :class:`Task`; the loss compares the whole batch of all workers."""
        assert isinstance(network, ForRetrieval)

        def encoder(batch: TaskBatch) -> "tuple[Tensor, Tensor]":
            with autocast:
                return _encode(network, batch)

        chunks = [lambda batch=batch: encoder(batch) for batch in batches]
        loss = backward_in_chunks(chunks, network.logit_scale)
        scale = network.logit_scale.detach().exp() * sum(map(len, batches))
        return {"loss": loss * num_examples, "logit_scale": scale}

    def predict(
        self, network: TaskNetwork, batch: TaskBatch, labels: Sequence[str]
    ) -> Iterator[Prediction]:
        """Yield the feature of each image, then those of its texts."""
        assert isinstance(network, ForRetrieval) and batch.text_counts is not None
        images, texts = _encode(network, batch)
        of_image = texts.float().cpu().split(batch.text_counts.tolist())
        for image, some in zip(images.float().tolist(), of_image, strict=True):
            yield Prediction(features=[image, *some.tolist()])

    def score(self, predictions: pa.Table, examples: pa.Table) -> dict[str, float]:
        """Return recall at 1, 5 and 10 both ways, and their mean."""
        features = predictions["features"].to_pylist()
        images = torch.tensor([some[0] for some in features])
        texts = torch.tensor([text for some in features for text in some[1:]])
        counts = torch.tensor([len(some) - 1 for some in features])
        image_of_text = torch.arange(len(images)).repeat_interleave(counts)
        recalls = retrieval_recalls(images, texts, image_of_text)
        return {
            **recalls,
            "mean_recall": sum(recalls.values()) / len(recalls),
            "chance/image_to_text/recall_at_1": float((counts / len(texts)).mean()),
            "chance/text_to_image/recall_at_1": 1 / len(images),
        }


def _encode(network: ForRetrieval, batch: TaskBatch) -> tuple[Tensor, Tensor]:
    assert batch.images is not None and batch.text_ids is not None
    images = network.encode_images(batch.images[:, 0], batch.scale(_IMAGE))
    texts = network.encode_texts(batch.text_ids, batch.text_padding, batch.scale(_TEXT))
    return images, texts
