"""Retrieval by the likelihood of masked words, on a small set of pairs.

The score of an image and a caption is the log-likelihood of the caption's words given the image and
the other words: every second word is masked, then the others. Of each caption the mean over all
images is subtracted, so that a caption of likely words is not the best one for every image. Nothing
of the network is tuned: this measures how well masked prediction alone compares images and texts.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from model import BEiT3
from model.training import objectives
from pipelines.pretrain.evaluation.inputs import MaskedPairs

SCHEMA: Final = pa.schema(
    [
        ("caption", pa.int64()),  # index of the pair among those that are compared
        ("row", pa.int64()),  # its row number in the held-out table
        ("scores", pa.list_(pa.float32())),  # of the images of all pairs, by index
    ]
)
_PARTS: Final = 2
"Parts of a caption, each of which is masked once."


def likelihood_rows(
    network: BEiT3,
    pairs: MaskedPairs,
    numbers: Sequence[int],
    captions: Sequence[int],
    mask_id: int,
    batch_size: int,
) -> pa.Table:
    """Score each of some captions with the images of all pairs; one row for each caption.

    Args:
        network: in evaluation mode.
        pairs: n pairs.
        numbers: their row numbers.
        captions: indexes of the captions to score.
        mask_id: id of the mask token.
        batch_size: number of images in a forward pass.
    """
    rows = []
    for caption in captions:
        parts = [
            _log_likelihood(network, pairs, caption, mask_id, images)
            for images in torch.arange(pairs.batch.num_samples).split(batch_size)
        ]
        rows.append(
            {"caption": caption, "row": numbers[caption], "scores": torch.cat(parts).tolist()}
        )
    return pa.Table.from_pylist(rows, SCHEMA)


def _log_likelihood(
    network: BEiT3, given: MaskedPairs, caption: int, mask_id: int, images: Tensor
) -> Tensor:
    """Return the log-likelihood (B,) of a caption's words with each of some images (B,)."""
    pairs = given.batch
    assert pairs.images is not None and pairs.text_targets is not None
    ids = pairs.text_targets[caption].expand(len(images), -1)
    words = given.words[caption].expand(len(images), -1)
    padding = pairs.text_padding
    total = torch.zeros(len(images), dtype=torch.float64)
    for part in range(_PARTS):
        masked = (words >= 0) & (words % _PARTS == part)
        batch = replace(
            pairs,
            images=pairs.images[images.to(ids.device)],
            image_mask=None,
            codes=None,
            text_ids=torch.where(masked, mask_id, ids),
            text_targets=ids,
            text_mask=masked,
            text_padding=None if padding is None else padding[caption].expand(len(images), -1),
        )
        (made,) = objectives.predict(network, batch).values()
        total.index_add_(0, made.samples.cpu(), -made.losses.double().cpu())
    return total


def score_matrix(rows: pa.Table) -> Tensor:
    """Return the scores, (images, captions), of the rows of :func:`likelihood_rows`."""
    rows = rows.sort_by("caption")
    scores = np.stack(rows["scores"].to_pylist()).astype(np.float64)
    return torch.from_numpy(scores - scores.mean(1, keepdims=True)).T
