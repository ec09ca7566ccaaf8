"""Recall at K between images and captions: whether the right one is among the first K.

Image to text counts an image as found if any of its captions is among the first K of all captions;
text to image counts a caption as found if its image is among the first K of all images. Candidates
with equal scores are ranked by their position, so that a score does not depend on how it is sorted.
"""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

KS: Final = (1, 5, 10)
_BLOCK: Final = 1024


def retrieval_recalls(
    images: Tensor, texts: Tensor, image_of_text: Tensor, ks: Sequence[int] = KS
) -> dict[str, float]:
    """Return recall in 0-1 by ``image_to_text/recall_at_K`` and ``text_to_image/recall_at_K``.

    Args:
        images: (N, D) float, the feature of each image; the score is the dot product.
        texts: (M, D) float, the feature of each caption.
        image_of_text: (M,) long, the row in ``images`` of each caption's image.
        ks: numbers of candidates that are looked at.

    Raises:
        ValueError: there are no captions, an image has none, a caption's image is not a row of
            ``images``, or a feature is not finite.
    """
    if len(texts) != len(image_of_text) or not len(texts):
        raise ValueError(
            f"{len(texts)} captions have features and {len(image_of_text)} have an image; each "
            "needs both, and there must be one"
        )
    for name, features in (("image", images), ("caption", texts)):
        # No score is above NaN, so that every partner would be found first.
        if (wrong := (~features.isfinite().all(dim=1)).nonzero()[:, 0]).numel():
            raise ValueError(
                f"the features of {wrong.numel()} {name}s are not finite, the first is row "
                f"{int(wrong[0])}; the network has diverged or its input is damaged"
            )
    counts = torch.bincount(image_of_text, minlength=len(images))
    if len(counts) > len(images) or int(image_of_text.min()) < 0:
        raise ValueError(f"image_of_text names an image beyond the {len(images)} images")
    if (without := (counts == 0).nonzero()[:, 0]).numel():
        raise ValueError(
            f"{without.numel()} images have no caption, the first is row {int(without[0])}; "
            "leave them out of the evaluation"
        )
    images, texts = images.double(), texts.double()
    is_own = torch.arange(len(images), device=images.device)[:, None] == image_of_text
    to_text = _ranks(images, texts, is_own)
    to_image = _ranks(texts, images, is_own.T)
    return {
        f"{way}/recall_at_{k}": float((ranks < k).double().mean())
        for way, ranks in (("image_to_text", to_text), ("text_to_image", to_image))
        for k in ks
    }


def _ranks(queries: Tensor, candidates: Tensor, is_right: Tensor) -> Tensor:
    """Return the rank from 0 of the best right candidate of each query."""
    ranks = []
    position = torch.arange(len(candidates), device=candidates.device)
    for start in range(0, len(queries), _BLOCK):
        scores = queries[start : start + _BLOCK] @ candidates.T
        right = is_right[start : start + _BLOCK]
        best = scores.masked_fill(~right, -torch.inf).argmax(dim=1, keepdim=True)
        # argmax may return any of several equal scores: take the first right one.
        top = scores.gather(1, best)
        first = ((scores == top) & right).int().argmax(dim=1, keepdim=True)
        ahead = (scores > top) | ((scores == top) & (position < first))
        ranks.append(ahead.sum(dim=1))
    return torch.cat(ranks)
