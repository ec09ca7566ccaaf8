"""Images that share a hash cost a bounded number of comparisons each, whatever they look like."""

import numpy as np
import pytest

from dataprep.near_duplicates import Looks, Tolerance
from pipelines.curate.leaders import MAX_LEADERS, roles_of

TOLERANCE = Tolerance(hash_bits=6, color=20, aspect=0.1, detail=0.2)
NUM_IMAGES = 20_000


def looks(colors: np.ndarray, gray: np.ndarray) -> Looks:
    size = np.full(len(colors), 100, np.int32)
    return Looks(np.zeros(len(colors), np.uint64), colors, gray, size, size)


def equal(number: int) -> Looks:
    rng = np.random.default_rng(0)
    one = rng.integers(0, 256, (1, 48)), rng.integers(0, 256, (1, 256))
    return looks(*(np.repeat(column.astype(np.uint8), number, 0) for column in one))


def different(number: int) -> Looks:
    rng = np.random.default_rng(0)
    return looks(
        rng.integers(0, 256, (number, 48), np.uint8), rng.integers(0, 256, (number, 256), np.uint8)
    )


def of_other_details(number: int) -> Looks:
    gray = np.random.default_rng(0).integers(0, 256, (number, 256), np.uint8)
    return looks(np.full((number, 48), 128, np.uint8), gray)


@pytest.mark.parametrize(
    ("make", "num_leaders", "num_following"),
    [
        (equal, 1, NUM_IMAGES - 1),
        (different, MAX_LEADERS, 0),
        (of_other_details, MAX_LEADERS, 0),
    ],
)
def test_comparisons_grow_with_the_number_of_images(make, num_leaders, num_following):
    counts = []
    for number in (NUM_IMAGES // 2, NUM_IMAGES):
        roles = roles_of(make(number), np.zeros(number, bool), TOLERANCE, MAX_LEADERS)
        counts.append(roles.num_compared)
        assert roles.num_compared <= num_leaders * number
    assert counts[1] < 2.1 * counts[0]
    assert roles.is_leader.sum() == num_leaders
    assert (roles.leader != np.arange(NUM_IMAGES)).sum() == num_following


def test_equal_evaluation_images_are_compared_once():
    roles = roles_of(equal(NUM_IMAGES), np.ones(NUM_IMAGES, bool), TOLERANCE, MAX_LEADERS)
    assert roles.num_compared == 0 and roles.is_leader.sum() == 1


def test_equal_looks_are_found_among_many_that_differ():
    both = Looks(*(np.concatenate([column, column]) for column in different(1000)))
    roles = roles_of(both, np.zeros(2000, bool), TOLERANCE, MAX_LEADERS)
    assert (roles.leader[1000:] == np.arange(1000)).all()


def test_an_evaluation_image_is_a_leader_whatever_the_number_of_leaders():
    both = Looks(*(np.concatenate([column, column]) for column in different(200)))
    is_evaluation = np.arange(400) < 200
    roles = roles_of(both, is_evaluation, TOLERANCE, MAX_LEADERS)
    assert roles.is_leader[:200].all() and not roles.is_leader[200:].any()
    assert (roles.leader[200:] == np.arange(200)).all()
