"""Captions of images: beam search and sampling.

The search is the authors' (github.com/microsoft/unilm, beit3): ``<s> [MASK]`` asks for the first
token, then the last token and [MASK] ask for the next one. A caption ends at ``</s>``; its score is
the sum of the log-probabilities of its tokens and ``</s>`` over length^length_penalty, where the
length counts ``<s>`` and ``</s>``. Log-probabilities are over the whole vocabulary. What no caption
holds in training is never generated: ``<s>``, ``<pad>``, [MASK] and the unused rows of the
embedding; the authors' decoder could choose them and leaves them out of the text.

What is generated for an image does not depend on the other images, their number or order, nor on
the cache, up to the rounding of matrix products of other sizes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from model.finetuning.beam_search import beam_search
from model.finetuning.hypotheses import Generated
from model.finetuning.next_token import Cached, NextToken, Recomputed
from model.finetuning.sampling import sample
from model.finetuning.task_networks import ForCaptioning

__all__ = ["LARGEST_PENALTY", "MOST_BEAMS", "Decoding", "Generated", "generate"]

LARGEST_PENALTY: Final = 10
"Of the length; above about 170 the power of a length is no number."
MOST_BEAMS: Final = 1000
"Time and memory of a caption grow with the beams; published decodings have 3 to 10."


@dataclass(frozen=True)
class Decoding:
    """How captions are generated."""

    num_beams: int = 3
    """Captions that are continued side by side. One beam with ``length_penalty=0`` is greedy
    search; with another penalty it goes on past ``</s>`` while a longer caption can score more."""
    length_penalty: float = 0.6
    "Exponent of the length by which the sum of log-probabilities is divided."
    max_length: int = 64
    "Most tokens of a caption, ``<s>`` and ``</s>`` included."
    temperature: float | None = None
    "Factor by which scores are divided before sampling; None searches instead."
    top_p: float = 1.0
    "Probability of the most likely tokens among which the next one is drawn."
    cached: bool = True
    "Whether keys and values are kept; without, each token runs the network over everything."

    def __post_init__(self) -> None:
        if self.num_beams < 1:
            raise ValueError(f"num_beams is {self.num_beams}; give 1 or more")
        if self.num_beams > MOST_BEAMS:
            raise ValueError(
                f"num_beams is {self.num_beams}; give at most {MOST_BEAMS}, as each beam takes the "
                "memory of a caption"
            )
        if not 0 <= self.length_penalty <= LARGEST_PENALTY:
            raise ValueError(
                f"length_penalty is {self.length_penalty}; give 0 or more, at most "
                f"{LARGEST_PENALTY}"
            )
        if self.max_length < 3:
            raise ValueError(
                f"max_length is {self.max_length}; give 3 or more: <s>, a token and </s>"
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; give more than 0, at most 1")
        if self.temperature is None:
            if self.top_p < 1:
                raise ValueError(f"top_p is {self.top_p} without a temperature; give both")
            return
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise ValueError(f"temperature is {self.temperature}; give more than 0, or None")
        if self.num_beams > 1:
            raise ValueError(
                f"temperature is {self.temperature} with num_beams {self.num_beams}; sampling "
                "draws one caption for each image: give num_beams 1"
            )


@torch.no_grad()
def generate(
    network: ForCaptioning,
    images: Tensor,
    decoding: Decoding,
    *,
    seeds: Sequence[int] | None = None,
) -> list[list[Generated]]:
    """Return captions of each image, the best first.

    A search returns the captions that had ended when no other could be better than the best one:
    at least one and at most ``num_beams``. Sampling returns one.

    Args:
        network: of captioning, on any device; precision is the caller's autocast.
        images: (B, 3, H, W) float, normalized, on the network's device; B may be 0.
        decoding: how captions are generated.
        seeds: of sampling, one for each image: a draw depends on the image's seed and the number
            of the token alone.

    Raises:
        ValueError: ``max_length`` exceeds the network's text positions, or seeds are missing or
            of another number.
        NotFinite: scores of tokens are no finite numbers.
    """
    longest = network.network.config.max_text_length
    if decoding.max_length > longest:
        raise ValueError(
            f"max_length is {decoding.max_length}, the network has {longest} text positions"
        )
    if (decoding.temperature is None) != (seeds is None):
        raise ValueError("seeds are for sampling: give them with a temperature, and never without")
    if seeds is not None and len(seeds) != len(images):
        raise ValueError(f"{len(seeds)} seeds for {len(images)} images; give one for each image")
    if not len(images):
        return []
    steps: NextToken = (
        Cached(network, images, decoding.max_length, decoding.num_beams)
        if decoding.cached
        else Recomputed(network, images)
    )
    num_images, last = len(images), network.mask_id - 1
    if seeds is not None and decoding.temperature is not None:
        return sample(
            steps, seeds, last, decoding.max_length, decoding.length_penalty,
            decoding.temperature, decoding.top_p,
        )  # fmt: skip
    return beam_search(
        steps, num_images, decoding.num_beams, last, decoding.max_length, decoding.length_penalty
    )
