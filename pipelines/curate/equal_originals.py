"""Second round: equal originals, found by their digests.

A slice reads a range of digests and writes ``equal`` (key ``global_row``): the verdict on each row
that is dropped because of other rows, and the row that is kept instead of a duplicate.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from orchestration import Output, Slice
from pipelines.curate.exchange import Exchange, key_range, written
from pipelines.curate.rules import KEPT, REASONS

_NONE: Final = np.iinfo(np.int64).max


def judge_equal(
    digests: Exchange, first_source_row: int, min_placeholder_captions: int, slice_: Slice
) -> Output:
    """Judge the rows of a range of digests."""
    keys = key_range(slice_.payload["number"], slice_.payload["total"])
    digest, global_row, caption, address, passes = digests.arrays(
        *keys,
        columns={
            "digest": np.uint64,
            "global_row": np.int64,
            "caption": np.uint64,
            "address": np.uint64,
            "passes": np.bool_,
        },
    )
    order = np.lexsort((global_row, digest))
    digest, global_row, caption, address, passes = (
        column[order] for column in (digest, global_row, caption, address, passes)
    )
    is_first = np.ones(len(digest), bool)
    is_first[1:] = digest[1:] != digest[:-1]
    group, starts = np.cumsum(is_first) - 1, np.flatnonzero(is_first)
    is_source = global_row >= first_source_row
    # Positions are sorted within a group, so its first row says whether it is an evaluation image.
    leaked = ~is_source[starts][group] & is_source
    captions = _num_different(group, caption, len(starts))[group]
    # One address under many captions is a list with a row for each caption of an image.
    addresses = _num_different(group, address, len(starts))[group]
    is_placeholder = (
        is_source & ~leaked & (np.minimum(captions, addresses) >= min_placeholder_captions)
    )
    is_left = is_source & passes & ~leaked & ~is_placeholder
    lefts = np.where(is_left, global_row, _NONE)
    first = np.minimum.reduceat(lefts, starts)[group] if len(starts) else lefts
    is_copy = is_left & (global_row != first)

    verdict = np.full(len(digest), KEPT, np.int8)
    verdict[leaked] = REASONS.index("evaluation_image")
    verdict[is_placeholder] = REASONS.index("placeholder")
    verdict[is_copy] = REASONS.index("duplicate")
    dropped = verdict != KEPT
    kept = np.where(is_copy, first, -1)
    columns = {
        "global_row": global_row[dropped],
        "verdict": verdict[dropped],
        "kept": kept[dropped],
    }
    return Output(len(digest), written("equal", columns, "global_row"))


def _num_different(
    group: NDArray[np.int64], values: NDArray[np.uint64], num_groups: int
) -> NDArray[np.int64]:
    """Return the number of different values, except 0, of each group."""
    order = np.lexsort((values, group))
    group, values = group[order], values[order]
    is_new = np.ones(len(group), bool)
    is_new[1:] = (group[1:] != group[:-1]) | (values[1:] != values[:-1])
    return np.bincount(group[is_new & (values != 0)], minlength=num_groups)
