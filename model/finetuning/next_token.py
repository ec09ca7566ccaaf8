"""The network's scores of the next token of captions, with or without a cache.

A caption that is generated ends with [MASK], whose hidden state scores the next token, as the
network was trained. Each step feeds the last token and [MASK]; the keys and values of [MASK] are
dropped afterwards.
"""

from typing import Protocol

import torch
from torch import Tensor

from model.finetuning.task_networks import BOS, ForCaptioning
from model.network.cache import Cache


class NextToken(Protocol):
    """Scores of the next token of the R texts of each image."""

    def begin(self) -> Tensor:
        """Return the scores (B, V) of the token after ``<s>``."""
        ...

    def after(self, texts: Tensor, tokens: Tensor) -> Tensor:
        """Return the scores (B * R, V) of the next token.

        Args:
            texts: (B, R) long on the CPU, the text of the last step that each text continues.
            tokens: (B, R) long on the CPU, the token by which it does.
        """
        ...

    def keep(self, images: Tensor) -> None:
        """Keep images (B',) long, on the CPU, in the given order."""
        ...


class Cached:
    """Keeps keys and values; those of an image's patches exist once."""

    def __init__(
        self, network: ForCaptioning, images: Tensor, max_length: int, num_texts: int
    ) -> None:
        self.network, self.images = network, images
        self.cache = Cache(network.network.config.depth, max_length, num_texts)

    def begin(self) -> Tensor:
        """See :class:`NextToken`."""
        return self._scores(torch.full((len(self.images), 1), BOS), self.images)

    def after(self, texts: Tensor, tokens: Tensor) -> Tensor:
        """See :class:`NextToken`."""
        if self.cache.num_texts > 1:
            self.cache.select(texts)
        return self._scores(tokens.reshape(-1, 1), None)

    def keep(self, images: Tensor) -> None:
        """See :class:`NextToken`."""
        self.cache.keep(images)

    def _scores(self, last: Tensor, images: Tensor | None) -> Tensor:
        ids = torch.cat([last, torch.full_like(last, self.network.mask_id)], dim=1)
        ids = ids.to(self.images.device, non_blocking=True)
        encoded = self.network.network(
            images, ids, attention="seq2seq", cache=self.cache, last_token=True
        )
        self.cache.drop_last(1)
        scores: Tensor = self.network.mlm_head(encoded.hidden[:, -1])
        return scores


class Recomputed:
    """Runs the network over the image and the whole text for each token."""

    def __init__(self, network: ForCaptioning, images: Tensor) -> None:
        self.network, self.images = network, images
        self.ids = torch.full((len(images), 1, 1), BOS)
        "(B, R, tokens), on the CPU."

    def begin(self) -> Tensor:
        """See :class:`NextToken`."""
        return self._scores()

    def after(self, texts: Tensor, tokens: Tensor) -> Tensor:
        """See :class:`NextToken`."""
        before = self.ids.gather(1, texts[:, :, None].expand(-1, -1, self.ids.shape[2]))
        self.ids = torch.cat([before, tokens[:, :, None]], dim=2)
        return self._scores()

    def keep(self, images: Tensor) -> None:
        """See :class:`NextToken`."""
        self.ids, self.images = self.ids[images], self.images[images.to(self.images.device)]

    def _scores(self) -> Tensor:
        num_texts = self.ids.shape[1]
        ids = self.ids.flatten(0, 1)
        ids = torch.cat([ids, ids.new_full((len(ids), 1), self.network.mask_id)], dim=1)
        images = self.images.repeat_interleave(num_texts, dim=0)
        asked = torch.arange(1, len(ids) + 1, device=images.device) * ids.shape[1] - 1
        scores: Tensor = self.network(images, ids.to(images.device), asked)
        return scores
