"""Checks of the network's inputs: whatever does not fit is refused in one sentence."""

from typing import Final, get_args

import torch
from torch import Tensor

from model.network.attention_mask import Attending
from model.network.cache import Cache

_ATTENDING: Final = get_args(Attending)


def check_batch(
    images: Tensor | None, text_ids: Tensor | None, attention: str, image_size: int
) -> None:
    """Check images (B, 3, image_size, image_size) and text ids (B, T).

    Ids are not compared with the vocabulary: on a GPU that would wait for each batch.

    Raises:
        ValueError: both are missing, or one has another type or shape.
    """
    if attention not in _ATTENDING:
        raise ValueError(f"attention={attention!r}; give {' or '.join(_ATTENDING)}")
    if images is None and text_ids is None:
        raise ValueError("neither images nor text_ids are given; give one or both")
    if images is not None:
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images have shape {tuple(images.shape)}; give (B, 3, height, width)")
        if images.shape[2:] != (image_size, image_size):
            raise ValueError(
                f"images of {tuple(images.shape[2:])} pixels, image_size is {image_size}; "
                "resize them"
            )
        if not images.is_floating_point():
            raise ValueError(
                f"images have type {_name(images.dtype)}; give float, normalized with the "
                "configuration's pixel_mean and pixel_std"
            )
    if text_ids is not None:
        if text_ids.ndim != 2:
            raise ValueError(f"text_ids have shape {tuple(text_ids.shape)}; give (B, T)")
        if text_ids.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"text_ids have type {_name(text_ids.dtype)}; give int64")
        if images is not None and len(images) != len(text_ids):
            raise ValueError(
                f"{len(images)} images and {len(text_ids)} texts; give one text for each image"
            )


def check_mask(
    name: str, mask: Tensor | None, of: str, masked: Tensor | None, length: int | None = None
) -> None:
    """Check a mask of ``masked``, (B, length or T).

    Raises:
        ValueError: it stands alone, is not bool, or has another shape.
    """
    if mask is None:
        return
    if masked is None:
        raise ValueError(f"{name} is given without {of}; give both or neither")
    if mask.dtype != torch.bool:
        raise ValueError(
            f"{name} has type {_name(mask.dtype)}; give bool, True = "
            f"{'padded, such as attention_mask == 0' if name == 'text_padding' else 'masked'}"
        )
    expected = (masked.shape[0], masked.shape[1] if length is None else length)
    if mask.shape != expected:
        raise ValueError(f"{name} has shape {tuple(mask.shape)}, {of} need {expected}")


def check_cached(
    cache: Cache,
    attention: str,
    images: Tensor | None,
    text_ids: Tensor | None,
    text_padding: Tensor | None,
) -> None:
    """Check that a forward continues the generation that a cache holds.

    Raises:
        ValueError: the inputs do not fit the cache; the message says what to give.
    """
    if attention != "seq2seq":
        raise ValueError(
            "a cache needs attention='seq2seq': in other attention new positions change cached ones"
        )
    if images is not None and cache.length:
        raise ValueError(
            "images are given although the cache is not empty; give them in the first call"
        )
    if text_padding is not None:
        raise ValueError(
            "text_padding is given with a cache; texts of a generation have one length, no padding"
        )
    if text_ids is None:
        return
    if cache.num_images is not None and text_ids.shape[0] not in (
        cache.num_images,
        cache.num_images * cache.num_texts,
    ):
        raise ValueError(
            f"text_ids have {text_ids.shape[0]} rows, the cache holds {cache.num_images} images "
            f"with {cache.num_texts} texts each; give a row for each image or for each text"
        )
    if (length := cache.text_length + text_ids.shape[1]) > cache.max_text_length:
        raise ValueError(
            f"texts of {length} tokens are longer than the cache's max_text_length "
            f"{cache.max_text_length}"
        )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
