"""Classification as retrieval: an image is compared with the texts of all classes (section 3.2.4).

The texts of all classes are encoded once per step; each worker encodes a part of them. As with
:mod:`feature_cache`, they are encoded once more to carry the gradient of their features on, so
that the activations of a chunk are in memory at a time.

Classes of the same text cannot be told apart: their text is encoded once, so that their scores are
equal bit by bit. Such a class is no wrong answer for another one.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from model.finetuning.task_networks import ForRetrieval
from model.network.beit3 import BEiT3

_CHUNK: Final = 256
"Number of texts that are encoded at once."


class ForClassTexts(ForRetrieval):
    """A dual encoder with the texts of a fixed list of classes."""

    text_ids: Tensor
    "(U, T) long, the distinct texts."
    text_padding: Tensor
    "(U, T) bool, True = padded."
    text_numbers: Tensor
    "(K,) long, number of the text of each class."

    def __init__(self, network: BEiT3, ids: Tensor, padding: Tensor) -> None:
        """Build the network.

        Args:
            network: the encoder.
            ids: (K, T) long, the text of each class.
            padding: (K, T) bool, True = padded.
        """
        super().__init__(network)
        distinct, numbers = torch.unique(ids, dim=0, return_inverse=True)
        first = torch.full((len(distinct),), len(ids))
        first.scatter_reduce_(0, numbers, torch.arange(len(ids)), "amin")
        self.register_buffer("text_ids", distinct, persistent=False)
        self.register_buffer("text_padding", padding[first], persistent=False)
        self.register_buffer("text_numbers", numbers, persistent=False)
        self._features: Tensor | None = None

    def train(self, mode: bool = True) -> "ForClassTexts":
        """Set the mode; the features of the classes are computed again at their next use."""
        self._features = None
        super().train(mode)
        return self

    @torch.no_grad()
    def text_features(self) -> Tensor:
        """Return the features (U, D) of all texts, computed once after a change of the mode."""
        if self._features is None:
            chunks = _chunks(range(len(self.text_ids)))
            self._features = _exact(torch.cat([self._encode(chunk) for chunk in chunks]))
        return self._features

    def forward(self, images: Tensor, residual_scale: Tensor | None = None) -> Tensor:
        """Return scores (B, K) of images (B, 3, H, W); for a gradient, all texts are encoded."""
        if torch.is_grad_enabled():
            texts = _exact(self._encode(list(range(len(self.text_ids)))))
        else:
            texts = self.text_features()
        return self._scores(self.encode_images(images, residual_scale), texts)

    def backward(
        self,
        batches: Sequence[tuple[Callable[[], Tensor], Tensor]],
        num_examples: int,
        smoothing: float,
        autocast: torch.autocast,
    ) -> dict[str, Tensor]:
        """Add the gradient of the mean loss over ``num_examples``; return this worker's sums.

        Args:
            batches: for each micro-batch a function that encodes its images, and its targets (B,).
            num_examples: examples of all workers.
            smoothing: part of each target that is spread over the classes.
            autocast: precision of the encoder.
        """
        rank, number = _place()
        mine = range(rank, len(self.text_ids), number)
        features = self._of_all_workers(mine, autocast).requires_grad_()
        zero = torch.zeros((), dtype=torch.float64, device=features.device)
        sums = {"loss": zero, "accuracy": zero.clone()}
        for encode, targets in batches:
            with autocast:
                images = encode()
            scores = self._scores(images, features)
            loss = self.loss(scores, targets, smoothing)
            (loss / num_examples).backward()
            sums["loss"] += loss.detach()
            sums["accuracy"] += (scores.argmax(1) == targets).sum()
        gradient = torch.zeros_like(features) if features.grad is None else features.grad
        if number > 1:
            dist.all_reduce(gradient)
        for chunk in _chunks(mine):
            with autocast:
                some = self._encode(chunk)
            some.backward(gradient[chunk].to(some.dtype))
        return sums

    def loss(self, scores: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        """Return the summed cross-entropy of scores (B, K) with smoothed targets (B,)."""
        classes = torch.arange(scores.shape[1], device=scores.device)
        same = self.text_numbers == self.text_numbers[targets][:, None]
        other = same & (classes != targets[:, None])
        logs = F.log_softmax(scores.masked_fill(other, -torch.inf), dim=1)
        right = logs.gather(1, targets[:, None])[:, 0]
        spread = logs.masked_fill(other, 0).sum(1) / (~other).sum(1)
        return -((1 - smoothing) * right + smoothing * spread).sum()

    def _of_all_workers(self, mine: range, autocast: torch.autocast) -> Tensor:
        """Return the features (U, D) of all texts, of which this worker encodes its part."""
        width, like = self.language_head.out_features, self.language_head.weight
        features = _exact(like.new_zeros(len(self.text_ids), width))
        with torch.no_grad(), autocast:
            for chunk in _chunks(mine):
                features[chunk] = self._encode(chunk).to(features.dtype)
        if _place()[1] > 1:
            dist.all_reduce(features)
        return features

    def _encode(self, chunk: list[int]) -> Tensor:
        return self.encode_texts(self.text_ids[chunk], self.text_padding[chunk])

    def _scores(self, images: Tensor, texts: Tensor) -> Tensor:
        """Return scores (B, K) of features of images (B, D) and of texts (U, D)."""
        scores = self.logit_scale.exp() * _exact(images) @ texts.T
        return scores[:, self.text_numbers]


def _exact(features: Tensor) -> Tensor:
    """Return features in float32, or in float64 if they are."""
    return features.to(torch.promote_types(features.dtype, torch.float32))


def _chunks(texts: range) -> Iterator[list[int]]:
    for i in range(0, len(texts), _CHUNK):
        yield list(texts[i : i + _CHUNK])


def _place() -> tuple[int, int]:
    """Return this worker's number and the number of workers."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
