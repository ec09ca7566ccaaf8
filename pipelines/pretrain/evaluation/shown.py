"""Held-out samples with what the network predicts at their masked positions, for the run report.

Two tables hold them. In ``shown_images`` the masked patches of an image are predicted from the
others, and of a pair from its caption too. In ``shown_words`` the masked words of a caption are
predicted with the pair's own image, with that of another pair, and without an image. The masks are
those by which the grounding gap is measured. No number of the evaluation depends on these tables.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataprep.images import encode_jpeg
from model import BEiT3
from model.network.attention_weights import last_attention
from model.training.batch import MicroBatch
from pipelines.pretrain.evaluation.inputs import MaskedPairs
from pipelines.pretrain.evaluation.patch_drawings import (
    MeanPatches,
    Pixels,
    attended,
    hidden,
    with_pixels,
)
from tokenizer.text import BOS, EOS, FIRST_PIECE, PAD, TextTokenizer

IMAGES: Final = "shown_images"
WORDS: Final = "shown_words"
"Names of the tables."
_QUALITY: Final = 92
_ENDS: Final = (BOS, EOS, PAD)
_MOST_PIECES: Final = 5
_MOST_MAPS: Final = 3
"Masked words of a caption whose attention is drawn."

_PIECES: Final = pa.list_(pa.struct([("piece", pa.string()), ("probability", pa.float32())]))
_WORD: Final = pa.struct(
    [
        ("position", pa.int32()),  # among the pieces of the caption
        ("right", _PIECES),  # with the pair's own image; the most likely piece first
        ("other", _PIECES),  # with the image of another pair
        ("none", _PIECES),  # without an image
        ("attention", pa.binary()),  # JPEG of the own image; null of all but the first few
    ]
)
_OF_A_SAMPLE: Final = [
    ("sample_id", pa.string()),
    ("source", pa.string()),
    ("crop", pa.binary()),  # JPEG of the view that the network sees
]
IMAGES_SCHEMA: Final = pa.schema(
    [
        *_OF_A_SAMPLE,
        ("caption", pa.string()),  # null of an image without caption
        ("masked", pa.binary()),  # JPEG, masked patches are gray
        ("target", pa.binary()),  # JPEG, masked patches are mean patches of their codes; null if
        # the network predicts pixels
        ("predicted", pa.binary()),  # JPEG, likewise of the predicted codes or pixels
        ("num_masked", pa.int32()),
        ("num_correct", pa.int32()),  # null of pixels
        ("num_correct_other", pa.int32()),  # with another pair's caption; null without caption
        ("attention", pa.binary()),  # JPEG, attention of the class token; nothing is masked
    ]
)
WORDS_SCHEMA: Final = pa.schema(
    [
        *_OF_A_SAMPLE,
        ("other_id", pa.string()),
        ("other_crop", pa.binary()),
        ("pieces", pa.list_(pa.string())),
        ("words", pa.list_(_WORD)),
    ]
)


@torch.no_grad()
def image_rows(
    network: BEiT3,
    batch: MicroBatch,
    crops: Pixels,
    means: MeanPatches | None,
    about: Sequence[Mapping[str, str | None]],
) -> pa.Table:
    """Predict the masked patches of images, or of pairs whose captions are not masked.

    Args:
        network: in evaluation mode.
        batch: B images or pairs on the network's device.
        crops: (B, H, H, 3) RGB, the images before normalization.
        means: draws codes; None if the network predicts pixels.
        about: ``sample_id``, ``source`` and ``caption`` of each sample.
    """
    assert batch.images is not None and batch.image_mask is not None
    masks = batch.image_mask.cpu().numpy()
    outputs = _of_patches(network, batch)
    shifted = None if batch.text_targets is None else _with_other_caption(batch)
    others = None if shifted is None else _of_patches(network, shifted)
    # Of all heads and of the class token, over the patches; nothing is masked.
    weights = last_attention(network, batch.images)[:, :, 0, 1:].mean(1).cpu().numpy()
    rows = []
    for i, (crop, mask) in enumerate(zip(crops, masks, strict=True)):
        row: dict[str, Any] = {
            **about[i],
            "crop": _jpeg(crop),
            "masked": _jpeg(hidden(crop, mask)),
            "num_masked": int(mask.sum()),
            "attention": _jpeg(attended(crop, weights[i])),
        }
        if means is None:
            row["predicted"] = _jpeg(with_pixels(crop, mask, outputs[i][mask]))
        else:
            assert batch.codes is not None
            codes, found = batch.codes[i].cpu().numpy(), outputs[i].argmax(-1)
            row["target"] = _jpeg(means.drawn(crop, mask, codes))
            row["predicted"] = _jpeg(means.drawn(crop, mask, found))
            row["num_correct"] = int((found == codes)[mask].sum())
            if others is not None:
                row["num_correct_other"] = int((others[i].argmax(-1) == codes)[mask].sum())
        rows.append(row)
    return pa.Table.from_pylist(rows, IMAGES_SCHEMA)


@torch.no_grad()
def word_rows(
    network: BEiT3,
    pairs: MaskedPairs,
    crops: Pixels,
    text: TextTokenizer,
    about: Sequence[Mapping[str, str | None]],
) -> pa.Table:
    """Predict the masked words of pairs with the own image, with that of the next pair, without.

    Args:
        network: in evaluation mode.
        pairs: B pairs on the network's device.
        crops: (B, H, H, 3) RGB, their images before normalization.
        text: the text tokenizer.
        about: ``sample_id`` and ``source`` of each pair.
    """
    batch = pairs.batch
    assert batch.images is not None and batch.text_ids is not None
    assert batch.text_mask is not None and batch.text_targets is not None
    next_ = torch.arange(batch.num_samples).roll(-1)
    images = {"right": batch.images, "other": batch.images[next_], "none": None}
    found = {name: _of_tokens(network, image, batch, text) for name, image in images.items()}
    attention = last_attention(network, batch.images, batch.text_ids, batch.text_padding)
    first = 1 + network.config.num_patches
    weights = attention.mean(1)[:, first:, 1:first].cpu().numpy()
    ids, masks = batch.text_targets.cpu(), batch.text_mask.cpu()
    rows = []
    for i, crop in enumerate(crops):
        words = [
            {
                "position": position - 1,
                **{name: of[i][position] for name, of in found.items()},
                "attention": (
                    _jpeg(attended(crop, weights[i, position])) if number < _MOST_MAPS else None
                ),
            }
            for number, position in enumerate(masks[i].nonzero()[:, 0].tolist())
        ]
        other = int(next_[i])
        rows.append(
            {
                **about[i],
                "crop": _jpeg(crop),
                "other_id": about[other]["sample_id"],
                "other_crop": _jpeg(crops[other]),
                "pieces": [text.piece(index) for index in ids[i].tolist() if index not in _ENDS],
                "words": words,
            }
        )
    return pa.Table.from_pylist(rows, WORDS_SCHEMA)


def _of_patches(network: BEiT3, batch: MicroBatch) -> NDArray[np.float32]:
    """Return the outputs of the head at all patches, (B, N, K) or (B, N, P * P * 3)."""
    encoded = network(
        batch.images, batch.text_targets, batch.text_padding, image_mask=batch.image_mask
    )
    outputs: Tensor = network.mim_head(encoded.patches)
    return np.asarray(outputs.float().cpu().numpy())


def _with_other_caption(batch: MicroBatch) -> MicroBatch:
    assert batch.text_targets is not None
    next_ = torch.arange(batch.num_samples).roll(-1)
    padding = None if batch.text_padding is None else batch.text_padding[next_]
    return replace(batch, text_targets=batch.text_targets[next_], text_padding=padding)


def _of_tokens(
    network: BEiT3, images: Tensor | None, batch: MicroBatch, text: TextTokenizer
) -> list[dict[int, list[dict[str, Any]]]]:
    """Return the most likely pieces of each masked token, by sample and position."""
    assert batch.text_mask is not None
    encoded = network(images, batch.text_ids, batch.text_padding)
    logits: Tensor = network.mlm_head(encoded.text[batch.text_mask])
    pieces = logits.float().softmax(-1)[:, FIRST_PIECE : text.last_piece + 1]
    best = pieces.topk(min(_MOST_PIECES, pieces.shape[1]), dim=-1)
    found: list[dict[int, list[dict[str, Any]]]] = [{} for _ in range(batch.num_samples)]
    where = batch.text_mask.nonzero().tolist()
    for (sample, position), indices, values in zip(
        where, best.indices.tolist(), best.values.tolist(), strict=True
    ):
        found[sample][position] = [
            {"piece": text.piece(index + FIRST_PIECE), "probability": value}
            for index, value in zip(indices, values, strict=True)
        ]
    return found


def _jpeg(pixels: Pixels) -> bytes:
    return encode_jpeg(pixels, _QUALITY)
