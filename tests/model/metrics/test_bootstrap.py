"""The interval against scipy's bootstrap, and how often it holds the true ratio."""

import numpy as np
import pytest
from scipy import stats

from model.metrics.bootstrap import NUM_RESAMPLES, ratio_interval


def samples(seed: int, number: int, mean: float = 0.3):
    """Counts of several sizes, and sums of that many draws with a mean each."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 20, number)
    return rng.binomial(counts, mean), counts


@pytest.mark.parametrize("number", [5, 60, 900])
def test_the_interval_is_that_of_scipy(number):
    sums, counts = samples(number, number)
    theirs = stats.bootstrap(
        (sums, counts),
        lambda s, c, axis=-1: s.sum(axis) / c.sum(axis),
        paired=True,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(0),
    ).confidence_interval
    low, high = ratio_interval(sums, counts, 3)
    width = theirs.high - theirs.low
    assert low == pytest.approx(theirs.low, abs=width / 15)
    assert high == pytest.approx(theirs.high, abs=width / 15)


def test_it_holds_the_true_ratio_about_as_often_as_it_says():
    held = 0
    for seed in range(200):
        low, high = ratio_interval(*samples(seed, 80), seed)
        held += low <= 0.3 <= high
    assert 0.9 < held / 200 < 0.99


def test_the_same_seed_gives_the_same_interval_in_any_chunks(monkeypatch):
    sums, counts = samples(0, 50)
    found = ratio_interval(sums, counts, 1)
    monkeypatch.setattr("model.metrics.bootstrap._CHUNK", 50 * (NUM_RESAMPLES // 3))
    assert ratio_interval(sums, counts, 1) == found
    assert ratio_interval(sums, counts, 2) != found


@pytest.mark.parametrize(
    ("sums", "counts", "words"),
    [([], [], "at least one sample"), ([1], [1, 2], "shape"), ([0, 1], [0, 3], "counts has 0")],
)
def test_samples_without_predictions_are_refused(sums, counts, words):
    with pytest.raises(ValueError, match=words):
        ratio_interval(sums, counts, 0)
