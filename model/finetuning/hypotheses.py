"""Captions that have ended, and their scores."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Generated:
    """One generated caption."""

    ids: list[int]
    "Token ids without ``<s>`` and ``</s>``."
    score: float
    "Sum of log-probabilities over length^length_penalty."
    ended: bool
    """Whether ``</s>`` was generated. A caption cut at the largest length has the token that would
    follow in its score, as in the authors' search."""


def scored(ids: list[int], log_probability: float, length_penalty: float, ended: bool) -> Generated:
    """Return a caption with its score.

    Args:
        ids: without ``<s>`` and ``</s>``.
        log_probability: sum over ``ids`` and the token after them.
        length_penalty: exponent of the length.
        ended: whether the token after them is ``</s>``.
    """
    return Generated(ids, log_probability / (len(ids) + 2) ** length_penalty, ended)
