"""Beam search: the best captions among those that R beams of each image reach.

In each step the 2R best continuations of an image's beams are taken in order: one by ``</s>`` is a
caption that has ended, the first R others are the next beams. An image is done when no beam can
still end better than its best caption: log-probabilities only fall, and the largest length divides
them by most.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.finetuning.finite import require_finite
from model.finetuning.hypotheses import Generated, scored
from model.finetuning.next_token import NextToken
from model.finetuning.task_networks import EOS


def beam_search(
    steps: NextToken,
    num_images: int,
    num_beams: int,
    last_id: int,
    max_length: int,
    length_penalty: float,
) -> list[list[Generated]]:
    """Return the captions of each image that have ended, the best first, at most ``num_beams``.

    Args:
        steps: scores next tokens, R = ``num_beams``.
        num_images: B.
        num_beams: R.
        last_id: last id that may be generated; the first is ``</s>``.
        max_length: most tokens of a caption, ``<s>`` and ``</s>`` included.
        length_penalty: exponent of the length.
    """
    beams = [_Beams(num_beams, max_length, length_penalty) for _ in range(num_images)]
    active = list(range(num_images))
    scores = steps.begin()
    for num_words in range(max_length - 1):
        likely, tokens = best_tokens(scores, 2 * num_beams, last_id)
        shape = (len(active), -1, likely.shape[1])
        for number, found, ids in zip(
            active, likely.reshape(shape), tokens.reshape(shape), strict=True
        ):
            beams[number].step(found, ids, num_words)
        order = remaining([beams[number].done for number in active])
        if not order:
            break
        if len(order) < len(active):
            steps.keep(torch.tensor(order))
            active = [active[row] for row in order]
        parents = np.stack([beams[number].parents for number in active])
        words = np.stack([beams[number].tokens[:, -1] for number in active])
        scores = steps.after(torch.from_numpy(parents), torch.from_numpy(words))
    return [found.best() for found in beams]


def best_tokens(
    scores: Tensor, number: int, last_id: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the log-probabilities and ids of the most likely tokens of each row, best first.

    Args:
        scores: (rows, V), of which ids from ``</s>`` to ``last_id`` are considered.
        number: of tokens; fewer are returned if fewer are considered.
        last_id: last id that is considered.

    Raises:
        NotFinite: a score is not a number.
    """
    wide = scores.float()
    considered = wide[:, EOS : last_id + 1]
    found, ids = considered.topk(min(number, considered.shape[1]), dim=1)
    likely = (found - wide.logsumexp(dim=1, keepdim=True)).double().cpu().numpy()
    require_finite(likely[:, 0], "scores of tokens")
    return likely, (ids + EOS).cpu().numpy()


def remaining(done: list[bool]) -> list[int]:
    """Return the rows that are not done; the last ones fill the rows of those that are."""
    number = done.count(False)
    last = [row for row, is_done in enumerate(done) if not is_done and row >= number]
    return [last.pop() if done[row] else row for row in range(number)]


class _Beams:
    """The beams of one image and its captions that have ended."""

    def __init__(self, num_beams: int, max_length: int, length_penalty: float) -> None:
        self.num_beams = num_beams
        self.max_length, self.length_penalty = max_length, length_penalty
        self.sums = np.zeros(1)
        "(R,) log-probability of each beam; -inf if there are fewer continuations than beams."
        self.tokens = np.zeros((1, 0), np.int64)
        "(R, words), without ``<s>``."
        self.parents = np.zeros(num_beams, np.int64)
        "(R,) the beam of the step before that each beam continues."
        self.ended: list[Generated] = []
        self.done = False

    def step(self, likely: NDArray[np.float64], ids: NDArray[np.int64], num_words: int) -> None:
        """Continue the beams; ``likely`` and ``ids`` are (R, tokens), best first."""
        sums = self.sums[:, None] + likely
        if num_words + 2 == self.max_length:
            for beam in np.flatnonzero(np.isfinite(self.sums)):
                self._end(int(beam), float(sums[beam, 0]), ended=ids[beam, 0] == EOS)
            self.done = True
            return
        parents, words, kept = [], [], []
        for index in np.argsort(-sums, axis=None, kind="stable"):
            beam, rank = divmod(int(index), sums.shape[1])
            if not math.isfinite(sums[beam, rank]):
                break
            if ids[beam, rank] == EOS:
                self._end(beam, float(sums[beam, rank]), ended=True)
                continue
            parents.append(beam)
            words.append(ids[beam, rank])
            kept.append(sums[beam, rank])
            if len(kept) == self.num_beams:
                break
        missing = self.num_beams - len(kept)
        self.parents = np.array(parents + [0] * missing, np.int64)
        self.sums = np.array(kept + [-math.inf] * missing)
        column = np.array(words + [EOS] * missing, np.int64)
        self.tokens = np.concatenate([self.tokens[self.parents], column[:, None]], axis=1)
        bound = self.sums.max() / self.max_length**self.length_penalty
        self.done = any(caption.score >= bound for caption in self.ended)

    def best(self) -> list[Generated]:
        """Return the captions that have ended, the best first."""
        return sorted(self.ended, key=lambda caption: -caption.score)[: self.num_beams]

    def _end(self, beam: int, log_probability: float, *, ended: bool) -> None:
        ids = self.tokens[beam].tolist()
        self.ended.append(scored(ids, log_probability, self.length_penalty, bool(ended)))
