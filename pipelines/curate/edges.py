"""Fourth round and the next two: leaders of near hashes.

- ``find_hash_pairs``: a slice takes some choices of bands, and of each choice the hashes in a range
  of its bits. It writes ``hash_pairs`` (key ``key``, of the first hash): pairs of near hashes.
- ``find_candidates``: a slice reads a range of hashes and writes ``candidates`` (key ``key``), the
  leaders whose hash is in a pair.
- ``find_edges``: a slice reads a range of pairs, compares their leaders, and writes ``edges`` (key
  ``later``): near duplicates (later row, earlier row); and ``refuted``, as before.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataprep.near_duplicates import (
    ALIKE,
    DETAIL_DIFFERS,
    Looks,
    Tolerance,
    choices,
    compare,
    near_pairs,
)
from orchestration import Output, Slice
from pipelines.curate.exchange import WHOLE, Exchange, key_range, mixed, written
from pipelines.curate.leaders import joined_looks, leader_columns, looks_of, no_looks

_HASHES_PER_ROW: Final = 16
"A task holds this many hashes in the memory of one look."
_PAIRS_PER_ROW: Final = 0.1
"A task compares the leaders of this many pairs of hashes in the memory of one look."
_SORTED_HASHES: Final = 50_000_000
"Hashes that a slice sorts, over all its choices of bands: half a minute."
_BLOCK_PAIRS: Final = 1 << 14
_PAIR: Final = {"first": np.uint64, "second": np.uint64}


def hash_slices(num_hashes: int, max_bits: int, partition_rows: int) -> list[Slice]:
    """Return the slices of ``find_hash_pairs``."""
    num_choices = len(choices(max_bits, num_hashes))
    total = -(-num_hashes // (_HASHES_PER_ROW * partition_rows))
    per_slice = max(_SORTED_HASHES * total // max(num_hashes, 1), 1)
    return [
        Slice(
            f"hash-pairs-{total}-{number:04d}-{first:04d}",
            {
                "choices": [first, min(first + per_slice, num_choices)],
                "num_hashes": num_hashes,
                "number": number,
                "total": total,
            },
        )
        for number in range(total)
        for first in range(0, num_choices, per_slice)
    ]


def find_hash_pairs(hashes: Exchange, max_bits: int, slice_: Slice) -> Output:
    """Find pairs of near hashes."""
    payload = slice_.payload
    first, last = key_range(payload["number"], payload["total"])
    no = np.empty(0, np.uint64)
    found, num_compared = [np.empty((0, 2), np.uint64)], 0
    whole = np.concatenate([no, *_blocks(hashes)]) if payload["total"] == 1 else None
    for choice in choices(max_bits, payload["num_hashes"])[slice(*payload["choices"])]:
        mine = whole
        if mine is None:
            parts = [no]
            for some in _blocks(hashes):
                keys = mixed(some & choice.mask)
                parts.append(some[(keys >= np.uint64(first)) & (keys <= np.uint64(last))])
            mine = np.concatenate(parts)
        pairs, compared = near_pairs(mine, choice, max_bits)
        found.append(pairs)
        num_compared += compared
    pairs = np.concatenate(found)
    columns = {"key": mixed(pairs[:, 0]), "first": pairs[:, 0], "second": pairs[:, 1]}
    counters = {"comparisons": num_compared}
    return Output(len(pairs), written("hash_pairs", columns, "key"), counters)


def _blocks(hashes: Exchange) -> Iterator[NDArray[np.uint64]]:
    for table in hashes.read(columns=["phash"]):
        yield table["phash"].to_numpy()


def find_candidates(leaders: Exchange, hash_pairs: Exchange, slice_: Slice) -> Output:
    """Copy the leaders of a range of hashes whose hash is in a pair."""
    first, second = hash_pairs.arrays(columns=_PAIR)
    wanted = np.unique(np.concatenate([first, second]))
    keys = key_range(slice_.payload["number"], slice_.payload["total"])
    global_row, found = _leaders(leaders, wanted, keys)
    columns = leader_columns(found, global_row)
    return Output(len(global_row), written("candidates", columns, "key"))


def pair_slices(num_pairs: int, partition_rows: int) -> list[Slice]:
    """Return the slices of ``find_edges``."""
    total = -(-num_pairs // max(int(_PAIRS_PER_ROW * partition_rows), 1))
    return [
        Slice(f"edges-{total}-{number:04d}", {"number": number, "total": total})
        for number in range(total)
    ]


def find_edges(
    candidates: Exchange,
    hash_pairs: Exchange,
    first_source_row: int,
    tolerance: Tolerance,
    slice_: Slice,
) -> Output:
    """Compare the leaders of a range of pairs of hashes."""
    keys = key_range(slice_.payload["number"], slice_.payload["total"])
    first, second = hash_pairs.arrays(*keys, columns=_PAIR)
    global_row, looks = _leaders(candidates, np.unique(np.concatenate([first, second])))
    order = np.lexsort((global_row, looks.phash))
    global_row, looks = global_row[order], looks.take(order)
    edges, refuted, num_compared = [np.empty((0, 2), np.int64)], [np.empty(0, np.int64)], 0
    for start in range(0, len(first), _BLOCK_PAIRS):
        some = slice(start, start + _BLOCK_PAIRS)
        a, b = _rows_of(looks.phash, first[some], second[some])
        is_later = global_row[a] > global_row[b]
        a, b = np.where(is_later, b, a), np.where(is_later, a, b)
        is_source = global_row[b] >= first_source_row
        a, b = a[is_source], b[is_source]
        verdict = compare(looks, looks, a, b, tolerance)
        num_compared += len(a)
        alike = verdict == ALIKE
        edges.append(np.stack([global_row[b[alike]], global_row[a[alike]]], 1))
        refuted.append(global_row[b[verdict == DETAIL_DIFFERS]])
    found = np.concatenate(edges)
    columns = {"later": found[:, 0], "earlier": found[:, 1]}
    return Output(
        num_rows_in=len(first),
        tables={
            **written("edges", columns, "later"),
            **written("refuted", {"global_row": np.unique(np.concatenate(refuted))}, "global_row"),
        },
        counters={"comparisons": num_compared},
    )


def _leaders(
    leaders: Exchange, wanted: NDArray[np.uint64], keys: tuple[int, int] = WHOLE
) -> tuple[NDArray[np.int64], Looks]:
    """Return the global rows and looks of the leaders that have one of these sorted hashes."""
    global_rows, found = [np.empty(0, np.int64)], [no_looks()]
    for table in leaders.read(*keys):
        hashes = table["phash"].to_numpy()
        nearest = np.minimum(np.searchsorted(wanted, hashes), max(len(wanted) - 1, 0))
        mine = table.filter(pa.array(wanted[nearest] == hashes)) if len(wanted) else table[:0]
        global_rows.append(mine["global_row"].to_numpy())
        found.append(looks_of(mine))
    return np.concatenate(global_rows), joined_looks(found)


def _rows_of(
    sorted_hashes: NDArray[np.uint64], first: NDArray[np.uint64], second: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return all pairs of rows with the two hashes of a pair."""
    starts = [np.searchsorted(sorted_hashes, side, "left") for side in (first, second)]
    counts = [
        np.searchsorted(sorted_hashes, side, "right") - start
        for side, start in zip((first, second), starts, strict=True)
    ]
    sizes = counts[0] * counts[1]
    pair = np.repeat(np.arange(len(first)), sizes)
    number = np.arange(len(pair)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    a = starts[0][pair] + number // counts[1][pair]
    b = starts[1][pair] + number % counts[1][pair]
    return a, b
