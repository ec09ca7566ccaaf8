"""Near duplicates: all pairs of near hashes, each once, and the comparison of their images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataprep.near_duplicates import choices, near_pairs


def brute_force(hashes: np.ndarray, max_bits: int) -> list[tuple[int, int]]:
    words = sorted(int(h) for h in hashes)
    return sorted(
        (words[i], words[j])
        for j in range(len(words))
        for i in range(j)
        if (words[i] ^ words[j]).bit_count() <= max_bits
    )


def all_pairs(hashes: np.ndarray, max_bits: int, expected: int) -> list[tuple[int, int]]:
    """The pairs of all choices of bands; ``expected`` hashes decide how fine the bands are."""
    found = [near_pairs(hashes, choice, max_bits)[0] for choice in choices(max_bits, expected)]
    return sorted(map(tuple, np.concatenate(found).tolist()))


@given(
    centers=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=5),
    flips=st.lists(
        st.tuples(st.integers(0, 4), st.sets(st.integers(0, 63), max_size=9)), max_size=30
    ),
    max_bits=st.integers(0, 8),
    expected=st.sampled_from([2, 5000]),
)
def test_every_near_pair_is_found_once_and_no_other(centers, flips, max_bits, expected):
    words = set(centers)
    for which, bits in flips:
        words.add(centers[which % len(centers)] ^ sum(1 << bit for bit in bits))
    hashes = np.array(list(words), np.uint64)
    assert all_pairs(hashes, max_bits, expected) == brute_force(hashes, max_bits)


@pytest.mark.parametrize("max_bits", [0, 3, 6])
def test_many_hashes_use_longer_keys_and_give_the_same_pairs(max_bits):
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 20_000, np.uint64)
    flipped = hashes[:300].copy()
    for i in range(300):
        for bit in rng.choice(64, i % 9, replace=False):
            flipped[i] ^= np.uint64(1 << int(bit))
    both = np.unique(np.concatenate([hashes, flipped]))
    pairs = np.stack([hashes[:300], flipped], 1)[np.arange(300) % 9 <= max_bits]
    pairs = np.sort(pairs[pairs[:, 0] != pairs[:, 1]], 1)
    assert all_pairs(both, max_bits, len(both)) == sorted(map(tuple, pairs.tolist()))


def test_no_hashes_give_no_pairs():
    (choice, *_) = choices(4, 0)
    assert near_pairs(np.array([], np.uint64), choice, 4)[0].shape == (0, 2)
