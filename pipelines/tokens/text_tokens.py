"""Text tokens: documents → packed sequences.

In: documents, the text tokenizer. Out: ``train`` and ``held_out``, each ``ids``:
fixed_size_list<uint16, L>. Whole documents are laid end to end, ``<s> … </s>`` around each, and
cut every L tokens; what is left at the end of a slice is dropped and counted.
"""

from collections.abc import Sequence
from functools import partial

import pyarrow as pa
from pydantic import Field

from orchestration import Context, Dataset, Output, Slice
from orchestration.params import StageParams
from orchestration.slices import read_slice, row_slices
from pipelines.tokens.held_out import is_held_out
from pipelines.tokens.text_tokenizer import MODEL_FILE
from tokenizer.packing import pack
from tokenizer.text import TextTokenizer


class Params(StageParams):
    """How documents become sequences."""

    length: int = Field(default=128, ge=8)
    "L, tokens of a sequence."
    held_out_share: float = Field(default=0.005, ge=0, lt=1)
    "Of the documents, kept from training for evaluation."
    slice_rows: int = Field(default=20_000, ge=1)
    "Documents of a slice."
    row_group_rows: int = Field(default=2048, ge=1)
    "Sequences of a row group: what training shuffles as one."


def run(context: Context, params: Params) -> None:
    """Pack each slice of documents in one worker."""
    datasets = context.inputs("documents")
    slices = [
        Slice(f"{number:03d}-{piece.id}", {"dataset": number, **piece.payload}, piece.num_rows)
        for number, dataset in enumerate(datasets)
        for piece in row_slices(dataset, params.slice_rows)
    ]
    tokenizer = context.input("tokenizer")
    context.map_slices(
        slices,
        partial(pack_slice, params, tokenizer, datasets),
        row_group_rows=params.row_group_rows,
    )
    context.commit(slices)


def pack_slice(
    params: Params, tokenizer: Dataset, datasets: Sequence[Dataset], piece: Slice
) -> Output:
    """Encode and pack the documents of one slice."""
    text = TextTokenizer.load(tokenizer.fetch(MODEL_FILE))
    dataset = datasets[piece.payload["dataset"]]
    rows = read_slice(dataset, piece, ["doc_id", "text"])
    texts = rows["text"].to_pylist()
    held_out = [is_held_out(name, params.held_out_share) for name in rows["doc_id"].to_pylist()]
    tables, left_over = {}, 0
    for name, wanted in (("train", False), ("held_out", True)):
        mine = [text for text, out in zip(texts, held_out, strict=True) if out is wanted]
        sequences, rest = pack(*text.encode_flat(mine), params.length)
        left_over += rest
        flat = pa.array(sequences.reshape(-1))
        ids = pa.FixedSizeListArray.from_arrays(flat, params.length)
        tables[name] = pa.table({"ids": ids})
    return Output(
        num_rows_in=rows.num_rows, tables=tables, counters={"num_tokens_dropped": left_over}
    )
