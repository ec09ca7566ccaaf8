"""Checks of the arguments of the network's forward; each error names argument and remedy."""

import torch
from torch import Tensor

from model.network.cache import Cache


def check_mask(
    name: str, mask: Tensor | None, of: str, masked: Tensor | None, length: int | None = None
) -> None:
    """Check a mask of the argument ``masked``, (B, …).

    Args:
        name: name of the mask's argument.
        mask: (B, length) bool.
        of: name of the masked argument.
        masked: what is masked; (B, T) if no length is given.
        length: second dimension of the mask.

    Raises:
        ValueError: the mask is not bool, has another shape, or masks nothing.
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
    """Check the arguments of a call with a cache, as ``BEiT3.forward`` names them.

    Raises:
        ValueError: an argument does not go with a cache, or not with what this one holds.
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
