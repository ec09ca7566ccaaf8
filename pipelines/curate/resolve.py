"""Last comparison: which near duplicates are dropped, and which image is kept instead of each.

Edges are followed in the order of their later image: a leader is dropped if an earlier leader that
looks like it is kept. The followers of a leader share its end. One slice reads the tables by ranges
of global rows, so its memory is a byte for each image and a few dozen for each near duplicate. It
writes ``verdicts`` (key ``global_row``): every image that is dropped because of another one.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from orchestration import Output, Slice
from pipelines.curate.exchange import Exchange, written
from pipelines.curate.rules import REASONS

_RANGE_ROWS: Final = 1 << 22
_DUPLICATE: Final = REASONS.index("duplicate")
_NEAR: Final = REASONS.index("near_duplicate")
_LEAKED: Final = REASONS.index("evaluation_image")


class NearTables(NamedTuple):
    """What the search for near duplicates has found."""

    edges: Exchange
    followers: Exchange
    refuted: tuple[Exchange, ...]


class _Replaced:
    """Images that are dropped for another one: sorted global rows, and the images kept instead."""

    def __init__(self) -> None:
        self.global_rows, self.kept = np.empty(0, np.int64), np.empty(0, np.int64)

    def add(self, global_rows: NDArray[np.int64], kept: NDArray[np.int64]) -> None:
        """Add images that come after all others, in the order of the recipe."""
        self.global_rows = np.concatenate([self.global_rows, global_rows])
        self.kept = np.concatenate([self.kept, kept])

    def replace(self, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the image kept instead of each: itself if it is not dropped."""
        if not len(self.global_rows):
            return wanted
        found = np.minimum(np.searchsorted(self.global_rows, wanted), len(self.global_rows) - 1)
        return np.where(self.global_rows[found] == wanted, self.kept[found], wanted)


def resolve(
    equal: Exchange, near: NearTables | None, num_rows: int, first_source_row: int, slice_: Slice
) -> Output:
    """Write all verdicts that depend on other images."""
    is_dropped = bytearray(num_rows)
    leaders, followers = _Replaced(), _Replaced()
    verdicts: list[dict[str, NDArray[np.generic]]] = []
    num_other_details = 0
    for start in range(0, num_rows, _RANGE_ROWS):
        keys = (start, start + _RANGE_ROWS - 1)
        if near is not None:
            leaders.add(*_followed(near.edges, keys, is_dropped))
            global_row, leader = near.followers.arrays(
                *keys, columns={"global_row": np.int64, "leader": np.int64}
            )
            order = np.argsort(global_row)
            followers.add(global_row[order], leaders.replace(leader[order]))
            num_other_details += _num_kept_by_detail(near, keys, leaders, followers)
            for found in (leaders, followers):
                first, last = np.searchsorted(found.global_rows, [start, start + _RANGE_ROWS])
                verdicts.append(_near(found, slice(first, last), first_source_row))
        verdicts.append(_equal(equal, keys, (followers, leaders)))
    columns = {name: np.concatenate([some[name] for some in verdicts]) for name in verdicts[0]}
    return Output(
        num_rows_in=num_rows,
        tables=written("verdicts", columns, "global_row"),
        counters={"images_kept_by_detail": num_other_details},
    )


def _followed(
    edges: Exchange, keys: tuple[int, int], is_dropped: bytearray
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Follow the edges of a range of later images; return the dropped images and those kept."""
    later, earlier = edges.arrays(*keys, columns={"later": np.int64, "earlier": np.int64})
    order = np.lexsort((earlier, later))
    dropped, kept = [], []
    for b, a in zip(later[order].tolist(), earlier[order].tolist(), strict=True):
        if not is_dropped[b] and not is_dropped[a]:
            is_dropped[b] = True
            dropped.append(b)
            kept.append(a)
    return np.array(dropped, np.int64), np.array(kept, np.int64)


def _near(found: _Replaced, some: slice, first_source_row: int) -> dict[str, NDArray[np.generic]]:
    kept = found.kept[some]
    return {
        "global_row": found.global_rows[some],
        "verdict": np.where(kept < first_source_row, _LEAKED, _NEAR).astype(np.int8),
        "kept": kept,
        "by_look": np.ones(len(kept), bool),
    }


def _equal(
    equal: Exchange, keys: tuple[int, int], near: tuple[_Replaced, _Replaced]
) -> dict[str, NDArray[np.generic]]:
    """Return the verdicts on equal originals; the image kept may be a near duplicate itself."""
    global_row, verdict, first = equal.arrays(
        *keys, columns={"global_row": np.int64, "verdict": np.int8, "kept": np.int64}
    )
    kept = first
    for found in near:
        kept = found.replace(kept)
    return {"global_row": global_row, "verdict": verdict, "kept": kept, "by_look": kept != first}


def _num_kept_by_detail(
    near: NearTables, keys: tuple[int, int], leaders: _Replaced, followers: _Replaced
) -> int:
    """Return the number of images that only a comparison of details has kept."""
    found = [table.arrays(*keys, columns={"global_row": np.int64})[0] for table in near.refuted]
    refuted = np.unique(np.concatenate(found))
    is_kept = (leaders.replace(refuted) == refuted) & (followers.replace(refuted) == refuted)
    return int(is_kept.sum())
