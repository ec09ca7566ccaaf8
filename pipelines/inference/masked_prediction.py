"""What a pretrained network predicts at masked tokens and patches, and the codes of patches."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from model import BEiT3
from model.finetuning.finite import require_finite
from model.network.beit3 import Encoded
from pipelines.finetune.views import CropMode, EvaluationViews
from pipelines.inference.processor import ImageInput, decoded
from tokenizer.vqkd import VQKD, to_input

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class FilledPatches:
    """The most likely codes of the masked patches of one image."""

    positions: Ints
    "(M,) number of each masked patch, row by row."
    codes: Ints
    "(M, k), the most likely first."
    probabilities: Floats
    "(M, k)."


def best_tokens(
    network: BEiT3, encoded: Encoded, ids: Tensor, mask: int, pieces: tuple[int, int], most: int
) -> list[list[tuple[list[int], list[float]]]]:
    """Return for each text and each mask in it the most likely pieces and their probabilities.

    Args:
        network: with its head for text.
        encoded: of the texts, alone or with images.
        ids: (B, T) long.
        mask: id of ``<mask>``.
        pieces: first and last id of the vocabulary's pieces; special tokens and unused rows are
            never returned, but have their part of the probability.
        most: pieces of each mask.
    """
    probabilities = network.mlm_head(encoded.text[ids == mask]).float().softmax(-1)
    require_finite(probabilities.cpu().numpy(), "probabilities of pieces")
    first, last = pieces
    best = probabilities[:, first : last + 1].topk(min(most, last + 1 - first), dim=-1)
    found = iter(zip((best.indices + first).tolist(), best.values.tolist(), strict=True))
    return [[next(found) for _ in range(number)] for number in (ids == mask).sum(1).tolist()]


def masks_of(masks: ArrayLike, num_images: int, num_patches: int) -> NDArray[np.bool_]:
    """Return masks as an array (B, N) bool.

    Raises:
        ValueError: they have another shape or other values.
    """
    masked = np.asarray(masks)
    if masked.size != num_images * num_patches or (num_images and len(masked) != num_images):
        raise ValueError(
            f"masks have the shape {masked.shape}; give ({num_images}, {num_patches}), a row for "
            "each image and a number for each patch"
        )
    if not np.isin(masked, (0, 1)).all():
        raise ValueError("masks hold other values than True and False; give True = masked")
    return masked.astype(bool).reshape(num_images, num_patches)


def best_codes(network: BEiT3, encoded: Encoded, masks: Tensor, most: int) -> list[FilledPatches]:
    """Return the most likely codes at masked patches.

    Args:
        network: with its head for images.
        encoded: of images with masked patches.
        masks: (B, N) bool, True = masked.
        most: codes of each patch.
    """
    probabilities = network.mim_head(encoded.patches[masks]).float().softmax(-1)
    require_finite(probabilities.cpu().numpy(), "probabilities of codes")
    best = probabilities.topk(min(most, probabilities.shape[1]), dim=-1)
    sizes = masks.sum(1).tolist()
    parts = zip(masks, best.indices.split(sizes), best.values.split(sizes), strict=True)
    return [
        FilledPatches(
            positions=torch.nonzero(mask)[:, 0].cpu().numpy(),
            codes=codes.cpu().numpy(),
            probabilities=values.cpu().numpy(),
        )
        for mask, codes, values in parts
    ]


@torch.inference_mode()
def codes_of(
    tokenizer: VQKD,
    images: Sequence[ImageInput],
    crop_mode: CropMode,
    batch_size: int,
    device: torch.device,
) -> Ints:
    """Return the codes (B, N) of images.

    Args:
        tokenizer: on ``device``.
        images: B images.
        crop_mode: how an image gets its square form.
        batch_size: images in a forward pass.
        device: where they are computed.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be 1 or more")
    views = EvaluationViews(tokenizer.config.image_size, crop_mode)
    found = [np.empty((0, tokenizer.config.grid**2), np.int64)]
    for first in range(0, len(images), batch_size):
        some = enumerate(images[first : first + batch_size], first)
        pixels = np.stack([views.square(decoded(image, number)) for number, image in some])
        found.append(tokenizer.encode(to_input(pixels).to(device)).cpu().numpy())
    return np.concatenate(found)
