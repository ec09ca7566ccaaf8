"""Where the samples of a step come from: image, caption and place in the token datasets.

Out: one row for each sample of a worker, in the order of its micro-batches: stream; micro_batch and
index, the sample's place in the worker's step; slot, its place in the global batch; file, row_group
and row (within the row group) of the token dataset; sample_id and source; view, the number of the
stored view (null if views are drawn anew); caption, its number, and text, the caption or the
beginning of the packed text.
"""

from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from model.training.batch import Stream
from pipelines.pretrain.crops import StoredViewCutter
from pipelines.pretrain.feed import Feed
from pipelines.pretrain.samples import SampleBuilder
from pipelines.readers.held_rows import HeldRows
from pipelines.tokens.image_tokens import VIEW_NUMBERS

Ints = NDArray[np.int64]
_TEXT_TOKENS: Final = 64
SCHEMA: Final = pa.schema(
    [
        ("stream", pa.string()),
        ("micro_batch", pa.int64()),
        ("index", pa.int64()),
        ("slot", pa.int64()),
        ("file", pa.string()),
        ("row_group", pa.int64()),
        ("row", pa.int64()),
        ("sample_id", pa.string()),
        ("source", pa.string()),
        ("view", pa.int64()),
        ("caption", pa.int64()),
        ("text", pa.string()),
    ]
)
_KEYS: Final = {
    "image": ("sample_id", "source", "views"),
    "text": ("ids",),
    "pair": ("sample_id", "source", "views", "captions"),
}


def sample_ids(feed: Feed, step: int) -> pa.Table:
    """Return where each sample of a feed's step comes from, with the columns of ``SCHEMA``.

    Args:
        feed: of the worker.
        step: the step whose data is taken, from 0.

    Raises:
        ManifestError: a part of a dataset is missing or disagrees with its manifest.
        StoreError: the store cannot be read at present.
    """
    tables, num_before = [SCHEMA.empty_table()], 0
    for stream in feed.orders:
        tables.append(_of_stream(feed, stream, step, num_before))
        num_before += feed.num_micro_batches(stream)
    return pa.concat_tables(tables)


def _of_stream(feed: Feed, stream: Stream, step: int, num_before: int) -> pa.Table:
    slots, reader = feed.slots[stream], feed.readers[stream]
    numbers, members = feed.orders[stream].samples(step, slots)
    keys = HeldRows(reader.dataset, _KEYS[stream], feed.reading)
    keys.hold(keys.groups_of(numbers).tolist())
    rows = keys.take(numbers).append_column("number", pa.array(numbers))
    rows, slots, captions = feed.arranged(stream, rows, step, slots, members)
    numbers = rows["number"].to_numpy()
    micro_batch, index = np.divmod(np.arange(len(slots)), feed.micro_batch)
    group_of = np.searchsorted(reader.first_rows, numbers, side="right") - 1
    groups = [reader.groups[group] for group in group_of.tolist()]
    found = {
        "stream": [stream] * len(slots),
        "micro_batch": num_before + micro_batch,
        "index": index,
        "slot": slots,
        "file": [group.part.path for group in groups],
        "row_group": [group.index for group in groups],
        "row": numbers - reader.first_rows[group_of],
        "view": _views(feed.builders[stream], rows, step, slots),
        "caption": captions,
        "text": _texts(feed.builders[stream], rows, captions),
    }
    found |= {key: rows[key] for key in ("sample_id", "source") if key in rows.column_names}
    known = {name: column for name, column in found.items() if column is not None}
    nothing = [None] * len(slots)
    return pa.table({name: known.get(name, nothing) for name in SCHEMA.names}, schema=SCHEMA)


def _views(builder: SampleBuilder, rows: pa.Table, step: int, slots: Ints) -> Ints | None:
    if builder.stream == "text" or not isinstance(builder.cutter, StoredViewCutter):
        return None
    return builder.cutter.drawn_views(rows["views"].type.list_size // VIEW_NUMBERS, step, slots)


def _texts(builder: SampleBuilder, rows: pa.Table, captions: Ints | None) -> list[str] | None:
    if builder.stream == "image":
        return None
    ids = rows["ids" if builder.stream == "text" else "captions"].to_pylist()
    if captions is not None:
        ids = [choices[number] for choices, number in zip(ids, captions.tolist(), strict=True)]
    return [builder.text.decode(some[:_TEXT_TOKENS]) for some in ids]
