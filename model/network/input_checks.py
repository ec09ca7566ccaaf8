"""Checks of the network's inputs: masks and caches that do not fit, each in one sentence."""

import torch
from torch import Tensor

from model.network.cache import Cache


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
            f"{name} has type {str(mask.dtype).removeprefix('torch.')}; give bool, True = "
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
    if text_ids is not None and cache.batch not in (None, text_ids.shape[0]):
        raise ValueError(
            f"text_ids have {text_ids.shape[0]} rows, the cache holds {cache.batch}; "
            "cache.select(rows) repeats, reorders or drops its rows"
        )
