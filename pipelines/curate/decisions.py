"""Last round: the verdict on each row, and the captions of each image that is kept.

A slice of rows writes the tables of the stage: ``pairs``, ``images``, ``rejects``, and
``caption_rejects``, one row per caption that an image lost.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataprep.captions import caption_faults
from dataprep.schemas import KEPT, REJECTS, reject, rejects_table
from orchestration import Output, Slice
from pipelines.curate.exchange import Exchange
from pipelines.curate.features import own_verdict
from pipelines.curate.layout import Chunk, Layout
from pipelines.curate.merging import Reject, fitting, merge, read_moved, sides
from pipelines.curate.rules import KEPT as IS_KEPT
from pipelines.curate.rules import REASONS, Params

SCHEMAS: Final = {"pairs": KEPT, "images": KEPT, "rejects": REJECTS, "caption_rejects": REJECTS}
"The tables of the stage."
_COLUMNS: Final = (
    "sample_id",
    "source",
    "sha256",
    "url",
    "captions",
    "held_out",
    "group",
    "original_width",
    "original_height",
)
_WITH_CAPTIONS: Final = [REASONS.index("duplicate"), REASONS.index("near_duplicate"), IS_KEPT]
"Verdicts on rows whose captions pass or fail one by one; any other row is dropped as a whole."


def decide(
    params: Params, layout: Layout, verdicts: Exchange, moved: Exchange, slice_: Slice
) -> Output:
    """Write the tables of a slice."""
    start, stop = slice_.payload["start"], slice_.payload["stop"]
    global_rows, found = verdicts.arrays(
        start, stop - 1, columns={"global_row": np.int64, "verdict": np.int8}
    )
    copies = read_moved(moved, slice_)
    tables: dict[str, list[pa.Table]] = {
        name: [schema.empty_table()] for name, schema in SCHEMAS.items()
    }
    counters: Counter[str] = Counter()
    for chunk in layout.chunks(slice_, _COLUMNS):
        verdict = own_verdict(params, layout, chunk)
        first, last = np.searchsorted(
            global_rows, [chunk.global_row, chunk.global_row + chunk.table.num_rows]
        )
        verdict[global_rows[first:last] - chunk.global_row] = found[first:last]
        tables["rejects"].append(_rejects(chunk.table, verdict))
        if chunk.global_row >= layout.first_image_row:
            empty: list[list[str]] = [[]] * chunk.table.num_rows
            tables["images"].append(_kept(chunk, verdict, empty))
            continue
        captions, rejects, num_merged = _captions(params, layout, chunk, verdict, copies)
        tables["pairs"].append(_kept(chunk, verdict, captions))
        tables["caption_rejects"].append(rejects_table(rejects))
        counters["captions_merged"] += num_merged
        counters.update(f"captions/{row['reason']}" for row in rejects)
    joined = {name: pa.concat_tables(some) for name, some in tables.items()}
    return Output(stop - start, joined, counters)


def _captions(
    params: Params,
    layout: Layout,
    chunk: Chunk,
    verdict: NDArray[np.int8],
    copies: dict[int, list[dict[str, Any]]],
) -> tuple[list[list[str]], list[Reject], int]:
    """Return the captions of each row, rejects of captions, and how many captions were added."""
    table = chunk.table
    texts = table["captions"].to_pylist()
    faults = caption_faults(table["captions"], params.min_caption_words, params.max_caption_words)
    captions = fitting(texts, faults)
    rejects: list[Reject] = []
    ids, sources = table["sample_id"].to_pylist(), table["source"].to_pylist()
    for i in np.flatnonzero(np.isin(verdict, _WITH_CAPTIONS)).tolist():
        for text, fault in zip(texts[i] or (), faults[i], strict=True):
            if fault is not None:
                rejects.append(reject(ids[i], sources[i], fault, text))
    num_merged = 0
    held_out, groups = sides(layout, chunk, table), table["group"].to_pylist()
    for i in range(table.num_rows):
        if mine := copies.get(chunk.global_row + i):
            most = params.max_merged_captions
            merged, left_out = merge(captions[i], mine, most, held_out[i], groups[i])
            num_merged += len(merged) - len(captions[i])
            captions[i] = merged
            rejects += left_out
    return captions, rejects, num_merged


def _kept(chunk: Chunk, verdict: NDArray[np.int8], captions: Sequence[list[str]]) -> pa.Table:
    indices = np.flatnonzero(verdict == IS_KEPT)
    columns = [
        chunk.table["sample_id"].take(pa.array(indices)),
        pa.array(np.full(len(indices), chunk.dataset, np.int32)),
        pa.array(indices + chunk.row),
        pa.array([captions[i] for i in indices.tolist()], KEPT.field("captions").type),
    ]
    return pa.table(columns, schema=KEPT)


def _rejects(rows: pa.Table, verdict: NDArray[np.int8]) -> pa.Table:
    indices = np.flatnonzero(verdict != IS_KEPT)
    mine = rows.take(pa.array(indices))
    reasons = pa.array(np.array(REASONS, object)[verdict[indices]], pa.string())
    columns = [mine["sample_id"], mine["source"], reasons, mine["sha256"], mine["url"]]
    return pa.table(columns, schema=REJECTS)
