"""Sampling: each token is drawn by its probability, among all tokens or the most likely ones.

A draw is a pure function of (seed of the image, number of the token): an inverse of the cumulative
probability in the order of ids, which small errors of rounding hardly change.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from model.finetuning.beam_search import remaining
from model.finetuning.finite import require_finite
from model.finetuning.hypotheses import Generated, scored
from model.finetuning.next_token import NextToken
from model.finetuning.task_networks import EOS
from model.training import randomness


def sample(
    steps: NextToken,
    seeds: Sequence[int],
    last_id: int,
    max_length: int,
    length_penalty: float,
    temperature: float,
    top_p: float,
) -> list[list[Generated]]:
    """Return one caption of each image.

    Args:
        steps: scores next tokens, R = 1.
        seeds: (B,), of the images.
        last_id: last id that may be drawn; the first is ``</s>``.
        max_length: most tokens of a caption, ``<s>`` and ``</s>`` included.
        length_penalty: exponent of the length in the scores.
        temperature: by which scores are divided.
        top_p: probability of the tokens to draw from.

    Raises:
        ValueError: a score is not a number.
    """
    sums, ids = [0.0] * len(seeds), [list[int]() for _ in seeds]
    done: dict[int, Generated] = {}
    active = list(range(len(seeds)))
    # As uint64: a list of Python's integers may become float64, which has not all their digits.
    keys = np.array([int(seed) % 2**64 for seed in seeds], np.uint64)
    scores = steps.begin()
    for num_words in range(max_length - 1):
        uniform = randomness.uniform(keys[active], num_words)
        wide = scores.double()
        probabilities = token_probabilities(wide[:, EOS : last_id + 1], temperature, top_p)
        drawn = draw(probabilities, torch.from_numpy(uniform).to(wide.device))[:, None] + EOS
        likely = wide.gather(1, drawn) - wide.logsumexp(dim=1, keepdim=True)
        tokens, found = drawn[:, 0].tolist(), likely[:, 0].tolist()
        require_finite(found, "scores of tokens")
        for number, token, log_probability in zip(active, tokens, found, strict=True):
            sums[number] += log_probability
            if token == EOS or num_words + 2 == max_length:
                done[number] = scored(ids[number], sums[number], length_penalty, token == EOS)
            else:
                ids[number].append(token)
        order = remaining([number in done for number in active])
        if not order:
            break
        if len(order) < len(active):
            steps.keep(torch.tensor(order))
            active = [active[row] for row in order]
        words = torch.tensor([[ids[number][-1]] for number in active])
        scores = steps.after(torch.zeros_like(words), words)
    return [[done[number]] for number in range(len(seeds))]


def token_probabilities(scores: Tensor, temperature: float, top_p: float) -> Tensor:
    """Return the probabilities (rows, ids) to draw from; they add up to 1.

    The most likely ids are kept until their probabilities add up to ``top_p`` or more; of equal
    ones the first.

    Args:
        scores: (rows, ids) float64.
        temperature: by which they are divided.
        top_p: above 0, at most 1.
    """
    # The largest score becomes 0, which no temperature makes infinite.
    falls = scores - scores.max(dim=1, keepdim=True).values
    probabilities = (falls / temperature).softmax(dim=1)
    if top_p == 1:
        return probabilities
    falling, order = probabilities.sort(dim=1, descending=True, stable=True)
    before = falling.cumsum(dim=1) - falling
    kept = torch.zeros_like(probabilities).scatter(1, order, falling.where(before < top_p, 0))
    return kept / kept.sum(dim=1, keepdim=True)


def draw(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Return the id (rows,) at which the cumulative probability exceeds a number in [0, 1).

    Args:
        probabilities: (rows, ids).
        uniform: (rows,).
    """
    cumulative = probabilities.cumsum(dim=1)
    target = uniform[:, None] * cumulative[:, -1:]
    found = torch.searchsorted(cumulative, target, right=True)[:, 0]
    last = probabilities.shape[1] - 1 - (probabilities.flip(1) > 0).int().argmax(dim=1)
    return torch.minimum(found, last)
