"""Third round: images of one perceptual hash.

Among the images of one hash, in the order of the recipe, an image that is a near duplicate of an
earlier *leader* follows it, and another image becomes a leader. Leaders alone are compared with
images of other hashes, so 20,000 copies of one image cost 20,000 comparisons.

A hash that more than ``MAX_LEADERS`` different images have says too little. Further images with
that hash are compared with those leaders and with evaluation images, and are kept otherwise unless
their whole look is equal. Evaluation images are always leaders, those of an equal look only once.

A slice reads a range of hashes and writes ``leaders`` (key ``key``, those with enough contrast for
a search among other hashes), ``hashes`` (the leaders' hashes, each once), ``followers`` (key
``global_row``), and ``refuted`` (key ``global_row``): images that differ from an image of near hash
and colors in their details alone.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataprep.image_hashes import COLOR_GRID, GRAY_GRID
from dataprep.near_duplicates import ALIKE, DETAIL_DIFFERS, Looks, Tolerance, are_flat, compare
from orchestration import Output, Slice
from pipelines.curate.exchange import Exchange, key_range, mixed, to_array, written

MAX_LEADERS: Final = 64


class Roles(NamedTuple):
    """What each of N images, sorted by hash and global row, is among those of its hash."""

    leader: NDArray[np.int64]
    "(N,) row of its leader; its own row if it follows none."
    is_leader: NDArray[np.bool_]
    "(N,)"
    is_refuted: NDArray[np.bool_]
    "(N,) whether it differs from a leader in its details alone."
    num_compared: int
    "Number of comparisons."


def find_leaders(
    looks: Exchange,
    equal: Exchange,
    num_rows: int,
    first_source_row: int,
    tolerance: Tolerance,
    slice_: Slice,
) -> Output:
    """Find leaders and followers among the images of a range of hashes."""
    keys = key_range(slice_.payload["number"], slice_.payload["total"])
    global_row, found = _left(looks, equal, num_rows, keys)
    order = np.lexsort((global_row, found.phash))
    global_row, found = global_row[order], found.take(order)
    is_evaluation = global_row < first_source_row
    roles = roles_of(found, is_evaluation, tolerance, MAX_LEADERS)
    is_alone = roles.leader == np.arange(len(global_row))
    follows = ~is_alone & ~is_evaluation
    is_flat = are_flat(found)
    searched = roles.is_leader & ~is_flat
    leaders = found.take(searched)
    hashes = np.unique(leaders.phash)
    return Output(
        num_rows_in=len(global_row),
        tables={
            **written("leaders", leader_columns(leaders, global_row[searched]), "key"),
            **written("hashes", {"key": mixed(hashes), "phash": hashes}, "key"),
            **written(
                "followers",
                {"global_row": global_row[follows], "leader": global_row[roles.leader[follows]]},
                "global_row",
            ),
            **written("refuted", {"global_row": global_row[roles.is_refuted]}, "global_row"),
        },
        counters={
            "images_without_structure": int((is_flat & ~is_evaluation).sum()),
            "comparisons": roles.num_compared,
            "images_of_crowded_hashes": int((is_alone & ~roles.is_leader).sum()),
        },
    )


def leader_columns(looks: Looks, global_row: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Return the columns of the leaders' tables."""
    return {"key": mixed(looks.phash), "global_row": global_row, **looks._asdict()}


def looks_of(table: pa.Table) -> Looks:
    """Return the looks of the rows of a table."""
    return Looks(*(to_array(table[name]) for name in Looks._fields))


def joined_looks(looks: Sequence[Looks]) -> Looks:
    """Return the looks of several tables, one after the other."""
    return Looks(*(np.concatenate(columns) for columns in zip(*looks, strict=True)))


def no_looks() -> Looks:
    """Return the looks of no images."""
    return Looks(
        np.empty(0, np.uint64),
        np.empty((0, 3 * COLOR_GRID**2), np.uint8),
        np.empty((0, GRAY_GRID**2), np.uint8),
        np.empty(0, np.int32),
        np.empty(0, np.int32),
    )


def _left(
    looks: Exchange, equal: Exchange, num_rows: int, keys: tuple[int, int]
) -> tuple[NDArray[np.int64], Looks]:
    """Return the images of a range of hashes that earlier rounds have not dropped."""
    is_dropped = np.zeros(num_rows, bool)
    for table in equal.read(columns=["global_row"]):
        is_dropped[table["global_row"].to_numpy()] = True
    global_rows, found = [np.empty(0, np.int64)], [no_looks()]
    for table in looks.read(*keys):
        global_row = table["global_row"].to_numpy()
        left = ~is_dropped[global_row]
        global_rows.append(global_row[left])
        found.append(looks_of(table).take(left))
    return np.concatenate(global_rows), joined_looks(found)


def roles_of(
    looks: Looks,
    is_evaluation: NDArray[np.bool_],
    tolerance: Tolerance,
    max_leaders: int,
) -> Roles:
    """Compare the images of each hash with its leaders.

    Args:
        looks: N images, sorted by hash and global row.
        is_evaluation: (N,) whether an image is an evaluation image; these come first.
        tolerance: largest differences of near duplicates.
        max_leaders: largest number of leaders of a hash that are no evaluation images.
    """
    size = len(looks.phash)
    leader = np.arange(size)
    is_leader, is_refuted = np.zeros(size, bool), np.zeros(size, bool)
    num_leaders: NDArray[np.int64] = np.zeros(size, np.int64)  # by the row of a hash's first image
    group = np.searchsorted(looks.phash, looks.phash)
    evaluation = np.flatnonzero(is_evaluation)
    leader[evaluation] = evaluation[_first_equal(looks.take(evaluation))]
    left = np.flatnonzero(leader == np.arange(size))
    num_compared = 0
    while len(left):
        # The first image left of each hash becomes a leader, unless there are too many.
        is_first = np.ones(len(left), bool)
        is_first[1:] = group[left[1:]] != group[left[:-1]]
        first_left = left[is_first][np.cumsum(is_first) - 1]
        is_full = num_leaders[group[left]] >= max_leaders
        is_full &= ~is_evaluation[left]
        if is_full.any():
            crowd = left[is_full]
            leader[crowd] = crowd[_first_equal(looks.take(crowd))]
        new = left[is_first & ~is_full]
        is_leader[new] = True
        num_leaders[group[new]] += ~is_evaluation[new]
        rest = np.flatnonzero(~is_full & ~is_first)
        left, candidate = left[rest], first_left[rest]
        verdict = compare(looks, looks, left, candidate, tolerance)
        num_compared += len(left)
        is_refuted[left[verdict == DETAIL_DIFFERS]] = True
        follows = (verdict == ALIKE) & ~is_evaluation[left]
        leader[left[follows]] = candidate[follows]
        left = left[~follows]
    return Roles(leader, is_leader, is_refuted, num_compared)


def _first_equal(looks: Looks) -> NDArray[np.int64]:
    """Return, for each image, the first one whose look is the same in every byte."""
    size = len(looks.phash)
    if not size:
        return np.empty(0, np.int64)
    columns = [np.ascontiguousarray(column).view(np.uint8).reshape(size, -1) for column in looks]
    rows = np.ascontiguousarray(np.concatenate(columns, axis=1))
    whole = rows.view(np.dtype((np.void, rows.shape[1])))[:, 0]
    _, first, inverse = np.unique(whole, return_index=True, return_inverse=True)
    result: NDArray[np.int64] = first[inverse]
    return result
