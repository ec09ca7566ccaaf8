"""Retrieval between held-out images and captions, beside chance.

==============  ==================================================================================
zero_shot       cosine of the pooled features of images alone and texts alone, as they are
tuned_heads     the same after linear heads were tuned contrastively on training pairs; also of an
                untrained network, and of pixels and counts of pieces
likelihood      log-likelihood of masked words, on fewer pairs (``likelihood.py``)
==============  ==================================================================================
"""

from typing import Final

import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor

from model.metrics.contrastive_heads import tune_heads
from model.metrics.retrieval import KS, retrieval_recalls
from pipelines.pretrain.evaluation.features import KINDS, Kind, features_of
from pipelines.pretrain.evaluation.likelihood import score_matrix

_SUFFIXES: Final[dict[Kind, str]] = {
    "trained": "",
    "untrained": "_untrained",
    "plain": "_pixels_and_pieces",
}
_MIN_PAIRS: Final = 2


def feature_numbers(
    queries: tuple[pa.Table, pa.Table], bank: tuple[pa.Table, pa.Table] | None, seed: int
) -> dict[str, float]:
    """Return the recalls by features.

    Args:
        queries: features of the images and of the captions of held-out pairs.
        bank: likewise of training pairs, if there are any.
        seed: of the tuning.
    """
    if queries[0].num_rows < _MIN_PAIRS:
        return {}
    asked = {kind: (features_of(queries[0], kind), features_of(queries[1], kind)) for kind in KINDS}
    images, texts = asked["trained"]
    numbers = _recalls("zero_shot", F.normalize(images, dim=1), F.normalize(texts, dim=1))
    if bank is None or bank[0].num_rows < _MIN_PAIRS:
        return numbers
    for kind in KINDS:
        heads = tune_heads(features_of(bank[0], kind), features_of(bank[1], kind), seed)
        numbers |= _recalls(f"tuned_heads{_SUFFIXES[kind]}", *heads.aligned(*asked[kind]))
    return numbers


def likelihood_numbers(rows: pa.Table) -> dict[str, float]:
    """Return the recalls by likelihood, from the rows of ``likelihood_rows``."""
    scores = score_matrix(rows)
    return _recalls("likelihood", scores, torch.eye(len(scores), dtype=scores.dtype))


def _recalls(name: str, images: Tensor, texts: Tensor) -> dict[str, float]:
    """Return the recalls of one caption for each image, and those of a random order."""
    number = len(images)
    found = retrieval_recalls(images, texts, torch.arange(number))
    chance = {f"chance/recall_at_{k}": min(k, number) / number for k in KS}
    return {
        f"retrieval/{name}/{key}": value
        for key, value in {**found, **chance, "num_pairs": number}.items()
    }
