"""Captioning: one sentence that describes an image, learned by predicting masked words.

Patches attend to patches, a token to the patches and to the tokens before it. Every caption is a
training sample, of which most tokens are masked. Captions are generated token by token; the best
weights are chosen by the CIDEr of our own tokens (``caption_metrics.py``).

Settings are those of the released code. Unlike it, the loss is the mean over the masked tokens of
the global batch, and ``drop_worst`` leaves out the worst ones of the global batch, so neither
depends on workers and micro-batches.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Final, Literal

import pyarrow as pa
import torch
import torch.distributed as dist
from pydantic import Field
from torch import Tensor

from dataprep.tasks.example import id_in_file
from model import BEiT3
from model.finetuning.captioning import caption_losses, kept_tokens, mask_captions
from model.finetuning.generation import generate
from model.finetuning.task_networks import ForCaptioning, TaskNetwork
from pipelines.finetune.batch import Ints, TaskBatch
from pipelines.finetune.caption_metrics import NAMES, OWN, own_scores, published_scores, unavailable
from pipelines.finetune.caption_params import DecodingParams, DropWorst, draw_seeds
from pipelines.finetune.task import Prediction, Task
from pipelines.finetune.texts import TextEncoder

_FEWEST_IMAGES: Final = 2
"Images of a split that has a CIDEr."


class Captioning(Task):
    """COCO captioning, NoCaps, and own images with captions."""

    metric: ClassVar = f"{OWN}/cider"
    num_images: ClassVar = 1
    num_texts: ClassVar = (0, None)
    needs_labels: ClassVar = False
    by_text: ClassVar = True
    truth_name: ClassVar = "caption"
    reads_texts: ClassVar = False
    word_head: ClassVar = True
    has_nearest: ClassVar = True

    name: Literal["captioning"]
    "Captioning."
    mask_ratio: float = Field(default=0.7, gt=0, le=1)
    "Fraction of a caption's tokens, its end included, that are masked and predicted."
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    "Probability that the target gives to all other tokens."
    drop_worst: DropWorst | None = DropWorst()
    "Which masked tokens the loss leaves out late in the training; null leaves out none."
    max_caption_tokens: int = Field(default=32, ge=3)
    "Number of tokens to which a training caption is cut, begin and end included."
    decoding: DecodingParams = DecodingParams()
    "How captions are generated."

    @property
    def max_text_tokens(self) -> int:
        """See :class:`Task`."""
        return self.max_caption_tokens

    @property
    def metric_names(self) -> Sequence[str]:
        """See :class:`Task`."""
        return NAMES

    def requires(self) -> str | None:
        """See :class:`Task`."""
        return unavailable()

    def label_names(self, splits: Mapping[str, pa.Table]) -> list[str]:
        """See :class:`Task`: there are none."""
        dev = splits.get("dev")
        if dev is not None and sum(map(bool, dev["texts"].to_pylist())) == 1:
            raise ValueError(
                "the split dev has one image with captions, of which CIDEr is 0 by construction; "
                f"give {_FEWEST_IMAGES} or more, or leave data.dev out"
            )
        return []

    def network(self, encoder: BEiT3, labels: Sequence[str], texts: TextEncoder) -> TaskNetwork:
        """See :class:`Task`."""
        return ForCaptioning(encoder, texts.tokenizer.mask)

    def is_used(self, rows: pa.Table, labels: Mapping[str, int]) -> list[bool]:
        """See :class:`Task`: an image without captions is left out."""
        return [bool(some) for some in rows["texts"].to_pylist()]

    def targets(self, rows: pa.Table, labels: Mapping[str, int]) -> None:
        """See :class:`Task`: they are the tokens that :meth:`drawn` masks."""

    def drawn(
        self, batch: TaskBatch, texts: TextEncoder, seed: int, step: int, slots: Ints
    ) -> TaskBatch:
        """See :class:`Task`: tokens are masked, and their ids are the targets (B, T)."""
        assert batch.text_ids is not None and batch.text_padding is not None
        ids, mask = mask_captions(
            batch.text_ids.numpy(),
            batch.text_padding.numpy(),
            self.mask_ratio,
            texts.tokenizer.mask,
            seed,
            step,
            slots,
        )
        return replace(
            batch,
            text_ids=torch.from_numpy(ids),
            text_mask=torch.from_numpy(mask),
            targets=batch.text_ids,
        )

    def losses(self, network: TaskNetwork, batch: TaskBatch) -> dict[str, Tensor]:
        """Return the loss of one micro-batch for itself, of all masked tokens."""
        tokens = self._of_tokens(network, batch)
        found = {"loss": tokens.losses, "accuracy": tokens.are_right}
        return {name: each.mean() * len(batch) for name, each in found.items()}

    def backward(
        self,
        network: TaskNetwork,
        batches: Sequence[TaskBatch],
        num_examples: int,
        autocast: torch.autocast,
    ) -> dict[str, Tensor]:
        """See :class:`Task`; the loss is the mean over tokens of the batch of all workers.

        Which tokens are the worst is known after the losses of all of them. If a worker has several
        micro-batches, their losses are therefore computed twice while ``drop_worst`` is in force:
        first without gradient, which takes about a third more time.
        """
        drop = self.drop_worst
        ratio = drop.ratio if drop is not None and batches[0].step > drop.after_steps else 0.0
        num_masked = num_kept = _over_workers(sum(int(_mask(batch).sum()) for batch in batches))
        kept: Sequence[Tensor] = ()
        if ratio and len(batches) > 1:
            with torch.no_grad(), autocast:
                parts = [self._of_tokens(network, batch) for batch in batches]
            kept, num_kept = _kept(parts, ratio)
        sums: dict[str, Tensor] = {}
        for i, batch in enumerate(batches):
            with autocast:
                tokens = self._of_tokens(network, batch)
            if ratio and not kept:
                kept, num_kept = _kept([tokens], ratio)
            counted = tokens.losses[kept[i]] if kept else tokens.losses
            loss = counted.sum() / num_kept
            loss.backward()
            found = {"loss": loss.detach(), "accuracy": tokens.are_right.sum() / num_masked}
            for name, value in found.items():  # on the device: nothing waits for it
                sums[name] = sums.get(name, 0) + value.double() * num_examples
        return sums

    def predict(
        self, network: TaskNetwork, batch: TaskBatch, labels: Sequence[str]
    ) -> Iterator[Prediction]:
        """Yield the captions of each image, best first, as token ids."""
        assert isinstance(network, ForCaptioning) and batch.images is not None
        decoding = self.decoding.decoding(network.network.config.max_text_length)
        seeds = None
        if decoding.temperature is not None:
            seeds = draw_seeds(self.decoding.seed, batch.rows)
        for found in generate(network, batch.images[:, 0], decoding, seeds=seeds):
            yield Prediction(
                token_ids=[each.ids for each in found], scores=[each.score for each in found]
            )

    def can_score(self, examples: pa.Table) -> bool:
        """See :class:`Task`: whether some image has captions."""
        return any(examples["texts"].to_pylist())

    def score(self, predictions: pa.Table, examples: pa.Table) -> dict[str, float]:
        """Return the metrics of our own tokens, and those of the most frequent caption."""
        return own_scores(*_captions(predictions, examples)[:2])

    def full_score(
        self, predictions: pa.Table, examples: pa.Table
    ) -> tuple[dict[str, float], dict[str, str]]:
        """Return the published metrics too, and of NoCaps the CIDEr of each domain."""
        captions, references, domains = _captions(predictions, examples)
        found, missing = published_scores(captions, references, domains)
        return {**found, **own_scores(captions, references)}, missing

    def is_right(self, label: str, given: Sequence[str]) -> None:
        """See :class:`Task`: a caption is neither right nor wrong."""

    def submission(self, predictions: pa.Table) -> bytes:
        """Return the list of captions that the evaluation servers of COCO and NoCaps take."""
        rows = zip(
            predictions["example_id"].to_pylist(), predictions["labels"].to_pylist(), strict=True
        )
        captions = [{"image_id": id_in_file(name), "caption": labels[0]} for name, labels in rows]
        return json.dumps(captions).encode()

    def _of_tokens(self, network: TaskNetwork, batch: TaskBatch) -> "_Tokens":
        """Return the losses of the masked tokens of a micro-batch."""
        assert batch.images is not None and batch.targets is not None and batch.slots is not None
        mask = _mask(batch)
        example, position = mask.nonzero().unbind(1)
        numbers = example * mask.shape[1] + position
        scores = network(
            batch.images[:, 0], batch.text_ids, numbers, batch.text_padding, batch.scale(0)
        )
        targets = batch.targets[mask]
        losses = caption_losses(scores, targets, self.label_smoothing)
        are_right = (scores.argmax(1) == targets).to(losses.dtype)
        return _Tokens(losses, are_right, batch.slots[example], position)


@dataclass(frozen=True)
class _Tokens:
    """The M masked tokens of a micro-batch; each tensor is (M,)."""

    losses: Tensor
    are_right: Tensor
    slots: Tensor
    positions: Tensor


def _kept(parts: Sequence[_Tokens], drop_ratio: float) -> tuple[Sequence[Tensor], int]:
    """Return which tokens of each micro-batch the loss keeps, and their number on all workers.

    Every worker calls it once in a step.
    """
    kept, number = kept_tokens(
        torch.cat([part.losses for part in parts]),
        torch.cat([part.slots for part in parts]),
        torch.cat([part.positions for part in parts]),
        drop_ratio,
    )
    return kept.split([len(part.losses) for part in parts]), int(number)


def _mask(batch: TaskBatch) -> Tensor:
    assert batch.text_mask is not None
    return batch.text_mask


def _over_workers(number: int) -> int:
    """Return the sum of a number over the workers."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return number
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    total = torch.tensor(number, device=device)
    dist.all_reduce(total)
    return int(total)


def _captions(
    predictions: pa.Table, examples: pa.Table
) -> tuple[list[str], list[list[str]], dict[str, list[int]]]:
    """Return captions and references of the images that have some, and the images by domain."""
    columns = predictions["labels"], examples["texts"], examples["labels"]
    rows = [row for row in zip(*(c.to_pylist() for c in columns), strict=True) if row[1]]
    domains: dict[str, list[int]] = {}
    for i, (_, _, labels) in enumerate(rows):
        for domain in labels:
            domains.setdefault(domain, []).append(i)
    return [row[0][0] for row in rows], [row[1] for row in rows], dict(sorted(domains.items()))
