"""Captions of dropped copies, for the image that is kept instead.

A slice of rows writes ``moved`` (key ``kept``): for each duplicate and near duplicate among
its pairs, the captions that pass the rules, and the global row of the image that receives them.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from dataprep.captions import HELD_OUT, OVER_LIMIT, REPEATED, caption_faults, caption_key
from dataprep.schemas import reject
from orchestration import Output, Slice
from pipelines.curate.exchange import Exchange, written
from pipelines.curate.layout import Chunk, Layout
from pipelines.curate.rules import REASONS, Params

_COLUMNS: Final = {
    "sample_id": pa.large_string(),
    "source": pa.large_string(),
    "captions": pa.list_(pa.large_string()),
    "held_out": pa.bool_(),
    "group": pa.large_string(),
}
_DUPLICATES: Final = [REASONS.index("duplicate"), REASONS.index("near_duplicate")]
_VERDICTS: Final = {
    "global_row": np.int64,
    "verdict": np.int8,
    "kept": np.int64,
    "by_look": np.bool_,
}

Reject = dict[str, str | None]


def move_captions(params: Params, layout: Layout, verdicts: Exchange, slice_: Slice) -> Output:
    """Write the captions of the copies among a slice."""
    start, stop = slice_.payload["start"], slice_.payload["stop"]
    global_row, verdict, kept, by_look = verdicts.arrays(start, stop - 1, columns=_VERDICTS)
    moves = np.isin(verdict, _DUPLICATES) & (kept >= layout.first_source_row)
    if not params.merge_near_duplicate_captions:
        moves &= ~by_look
    global_row, kept = global_row[moves], kept[moves]
    rows: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    if len(global_row):
        for chunk in layout.chunks(slice_, list(_COLUMNS)):
            end = chunk.global_row + chunk.table.num_rows
            first, last = np.searchsorted(global_row, [chunk.global_row, end])
            mine = chunk.table.take(pa.array(global_row[first:last] - chunk.global_row))
            faults = caption_faults(
                mine["captions"], params.min_caption_words, params.max_caption_words
            )
            for name in ("sample_id", "source", "group"):
                rows[name] += mine[name].to_pylist()
            rows["held_out"] += sides(layout, chunk, mine)
            rows["captions"] += fitting(mine["captions"].to_pylist(), faults)
    columns = {name: pa.array(values, _COLUMNS[name]) for name, values in rows.items()}
    return Output(len(global_row), written("moved", {"kept": kept, **columns}, "kept"))


def sides(layout: Layout, chunk: Chunk, rows: pa.Table) -> list[bool | None]:
    """Return whether rows of a chunk are held out from training; None where nothing says so."""
    if chunk.dataset in layout.held_out:
        return [True] * rows.num_rows
    return rows["held_out"].to_pylist()


def may_move(copy: dict[str, Any], held_out: bool | None, group: str | None) -> bool:
    """Return whether an image may receive the captions of a copy.

    A caption that is held out must not be trained on, and captions of one group stay on one side.

    Args:
        copy: row of ``moved``.
        held_out: whether the receiving image is held out.
        group: group of the receiving image.
    """
    if held_out:
        return True
    if copy["held_out"] is not None:
        return not copy["held_out"]
    return copy["group"] is None or copy["group"] == group


def fitting(
    captions: Sequence[Sequence[str] | None], faults: Sequence[Sequence[str | None]]
) -> list[list[str]]:
    """Return the captions of each image that have no fault."""
    return [
        [text for text, fault in zip(texts or (), mine, strict=True) if fault is None]
        for texts, mine in zip(captions, faults, strict=True)
    ]


def read_moved(moved: Exchange, slice_: Slice) -> dict[int, list[dict[str, Any]]]:
    """Return the rows of ``moved`` by the global row of the image that receives their captions."""
    result: dict[int, list[dict[str, Any]]] = {}
    for table in moved.read(slice_.payload["start"], slice_.payload["stop"] - 1):
        for row in table.to_pylist():
            result.setdefault(row["kept"], []).append(row)
    return result


def merge(
    own: list[str],
    copies: Sequence[dict[str, Any]],
    max_merged: int,
    held_out: bool | None,
    group: str | None,
) -> tuple[list[str], list[Reject]]:
    """Return an image's captions with those of its copies, and rejects for those left out.

    Args:
        own: captions of the image.
        copies: rows of ``moved``, in the order of the recipe.
        max_merged: largest number of captions to add.
        held_out: whether the image is held out.
        group: group of the image.
    """
    captions, rejects = list(own), []
    seen = {caption_key(caption) for caption in own}
    for copy in copies:
        moves = may_move(copy, held_out, group)
        for caption in copy["captions"]:
            key = caption_key(caption)
            if moves and key not in seen and len(captions) < len(own) + max_merged:
                captions.append(caption)
                seen.add(key)
            else:
                fault = HELD_OUT if not moves else REPEATED if key in seen else OVER_LIMIT
                rejects.append(reject(copy["sample_id"], copy["source"], fault, caption))
    return captions, rejects
