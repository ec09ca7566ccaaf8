"""Near pairs of hashes: all of them and no others, for any number of bands."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataprep.near_duplicates import near_pairs


def brute_force(hashes: np.ndarray, max_bits: int) -> set[tuple[int, int]]:
    words = [int(h) for h in hashes]
    return {
        (i, j)
        for j in range(len(words))
        for i in range(j)
        if (words[i] ^ words[j]).bit_count() <= max_bits
    }


@given(
    centers=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=5),
    flips=st.lists(
        st.tuples(st.integers(0, 4), st.sets(st.integers(0, 63), max_size=9)), max_size=30
    ),
    max_bits=st.integers(0, 8),
)
def test_every_near_pair_is_found_and_no_other(centers, flips, max_bits):
    words = list(centers)
    for which, bits in flips:
        words.append(centers[which % len(centers)] ^ sum(1 << bit for bit in bits))
    hashes = np.array(words, np.uint64)
    found = {tuple(pair) for pair in near_pairs(hashes, max_bits).tolist()}
    assert found == brute_force(hashes, max_bits)


@pytest.mark.parametrize("max_bits", [0, 3, 6])
def test_many_hashes_use_longer_keys_and_give_the_same_pairs(max_bits):
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 20_000, np.uint64)
    flipped = hashes[:300].copy()
    for i in range(300):
        for bit in rng.choice(64, i % 9, replace=False):
            flipped[i] ^= np.uint64(1 << int(bit))
    both = np.concatenate([hashes, flipped])
    found = {tuple(pair) for pair in near_pairs(both, max_bits).tolist()}
    assert found == {(i, 20_000 + i) for i in range(300) if i % 9 <= max_bits}


def test_no_hashes_give_no_pairs():
    assert near_pairs(np.array([], np.uint64), 4).shape == (0, 2)
