"""Curate: which pictures go on.

In: the images of every source. Out: ``pairs`` and ``images`` (sample_id, input dataset, row in
it) and ``rejects``; nothing is copied and nothing is deleted.
Drops: ``placeholder`` (one picture under several different captions: what a site shows instead of
what was there), ``duplicate`` (the first of equal originals is kept), ``caption_length``.
"""

from collections.abc import Sequence
from functools import partial

import pyarrow as pa
from pydantic import Field

from dataprep.schemas import KEPT, reject, rejects_table
from orchestration import Context, Dataset, Output, Slice
from orchestration.params import StageParams


class Params(StageParams):
    """Rules for keeping a picture."""

    placeholder_captions: int = Field(default=3, ge=2)
    "So many different captions make an original a placeholder."
    min_caption_words: int = Field(default=2, ge=1)
    max_caption_words: int = Field(default=256, ge=1)


def run(context: Context, params: Params) -> None:
    """Judge all pictures in one worker: digests and captions only are read."""
    pairs = context.inputs("pairs")
    datasets = [*pairs, *context.inputs("images")]
    slices = [Slice("000000", {"num_pair_datasets": len(pairs)})]
    context.map_slices(slices, partial(curate, params, datasets), row_group_rows=65_536)
    context.commit(slices)


def curate(params: Params, datasets: Sequence[Dataset], piece: Slice) -> Output:
    """Judge every row, in the order of the datasets."""
    num_pair_datasets = piece.payload["num_pair_datasets"]
    columns = ["sample_id", "source", "sha256", "captions"]
    tables = [dataset.read(columns=columns).to_pylist() for dataset in datasets]
    captions_of: dict[str, set[str]] = {}
    for row in (row for table in tables for row in table):
        captions_of.setdefault(row["sha256"], set()).update(row["captions"])
    seen: set[str] = set()
    kept: dict[str, list[dict[str, object]]] = {"pairs": [], "images": []}
    rejects = []
    for number, table in enumerate(tables):
        is_pair = number < num_pair_datasets
        for place, row in enumerate(table):
            digest = row["sha256"]
            reason = None
            if len(captions_of[digest]) >= params.placeholder_captions:
                reason = "placeholder"
            elif digest in seen:
                reason = "duplicate"
            elif is_pair and not any(_fits(params, caption) for caption in row["captions"]):
                reason = "caption_length"
            if reason:
                rejects.append(reject(row["sample_id"], row["source"], reason, digest))
                continue
            seen.add(digest)
            kept["pairs" if is_pair else "images"].append(
                {"sample_id": row["sample_id"], "dataset": number, "row": place}
            )
    tables_out = {name: pa.Table.from_pylist(rows, KEPT) for name, rows in kept.items()}
    return Output(
        num_rows_in=sum(map(len, tables)),
        tables={**tables_out, "rejects": rejects_table(rejects)},
    )


def _fits(params: Params, caption: str) -> bool:
    return params.min_caption_words <= len(caption.split()) <= params.max_caption_words
