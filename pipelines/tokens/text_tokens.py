"""Text tokens: documents → packed sequences.

In: documents, the text tokenizer. Out: ``train`` and ``held_out``, each ``ids``:
fixed_size_list<uint16, L>. Documents, each as ``<s> … </s>``, are concatenated and cut every L
tokens; the remainder at the end of a slice is dropped and counted (``num_tokens_dropped``).
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import pyarrow as pa
from pydantic import Field

from orchestration import Context, Dataset, Output, Slice, Stage, feeding
from orchestration.params import StageParams
from orchestration.reporting.usage import WORKER_BYTES, Expected, Workers
from orchestration.slices import read_slice, row_slices
from pipelines.readers.expected_memory import row_bytes
from pipelines.tokens.held_out import is_held_out
from pipelines.tokens.text_tokenizer import MODEL_FILE
from tokenizer.packing import pack
from tokenizer.text import TextTokenizer

_DOCUMENT_BYTES: Final = 2000
"Committed bytes of a document, where no input says more."
_MEMORY_PER_BYTE: Final = 60
"Memory of a slice for each committed, that is compressed, byte: texts, ids, sequences."


class Params(StageParams):
    """Packing of documents into sequences."""

    length: int = Field(default=128, ge=8)
    "Number of tokens in a sequence."
    held_out_fraction: float = Field(default=0.005, ge=0, lt=1)
    "Expected fraction of documents held out for evaluation, where the sources do not say which."
    slice_rows: int = Field(default=20_000, ge=1)
    "Number of documents in a slice."
    row_group_rows: int = Field(default=2048, ge=1)
    "Number of sequences in a row group, the unit that training reads and shuffles."


def stage(
    params: Params,
    *,
    seed: int,
    documents: Sequence[Stage],
    held_out: Sequence[Stage],
    tokenizer: Stage,
) -> Stage:
    """Return the stage ``text_tokens``.

    Args:
        params: the recipe's section.
        seed: of the recipe.
        documents: the stages that give documents.
        held_out: those of them whose documents are all held out.
        tokenizer: ``text_tokenizer``.
    """
    return Stage(
        "text_tokens",
        lambda context: run(context, params),
        params,
        feeding(documents=documents, held_out=held_out, tokenizer=tokenizer),
        seed=seed,
        version=2,
        workers=partial(workers, params, [each.name for each in documents]),
    )


def workers(params: Params, documents: Sequence[str], inputs: Mapping[str, Expected]) -> Workers:
    """Predict the memory of a worker: the documents of a slice and their tokens."""
    sizes = [row_bytes(inputs, [name], _DOCUMENT_BYTES) for name in documents]
    held = params.slice_rows * max(sizes, default=0) * _MEMORY_PER_BYTE
    return Workers(WORKER_BYTES + round(held))


def run(context: Context, params: Params) -> None:
    """Pack each slice of documents in one worker."""
    datasets = context.inputs("documents")
    slices = [
        Slice(f"{number:03d}-{slice_.id}", {"dataset": number, **slice_.payload}, slice_.num_rows)
        for number, dataset in enumerate(datasets)
        for slice_ in row_slices(dataset, params.slice_rows)
    ]
    tokenizer = context.input("tokenizer")
    names, held_out_names = (context.stage.inputs[role] for role in ("documents", "held_out"))
    whole = [number for number, name in enumerate(names) if name in held_out_names]
    context.map_slices(
        slices,
        partial(pack_slice, params, context.seed, whole, tokenizer, datasets),
        row_group_rows=params.row_group_rows,
    )
    schema = pa.schema([("ids", pa.list_(pa.uint16(), params.length))])
    context.commit(slices, schemas={"train": schema, "held_out": schema})


def pack_slice(
    params: Params,
    seed: int,
    whole: Sequence[int],
    tokenizer: Dataset,
    datasets: Sequence[Dataset],
    slice_: Slice,
) -> Output:
    """Encode and pack the documents of one slice.

    Args:
        params: the recipe's section.
        seed: of the recipe.
        whole: numbers of the datasets that are held out as a whole.
        tokenizer: dataset of ``text_tokenizer``.
        datasets: of documents.
        slice_: the slice.
    """
    text = TextTokenizer.load(tokenizer.fetch(MODEL_FILE))
    dataset = datasets[slice_.payload["dataset"]]
    rows = read_slice(dataset, slice_, ["doc_id", "text"])
    texts = rows["text"].to_pylist()
    fraction = 1.0 if slice_.payload["dataset"] in whole else params.held_out_fraction
    ids = rows["doc_id"].to_pylist()
    held_out = [is_held_out("document", doc_id, fraction, seed) for doc_id in ids]
    tables, num_dropped = {}, 0
    for name, wanted in (("train", False), ("held_out", True)):
        chosen = [text for text, out in zip(texts, held_out, strict=True) if out is wanted]
        sequences, remainder = pack(*text.encode_flat(chosen), params.length)
        num_dropped += remainder
        flat = pa.array(sequences.reshape(-1))
        tables[name] = pa.table({"ids": pa.FixedSizeListArray.from_arrays(flat, params.length)})
    return Output(
        num_rows_in=rows.num_rows, tables=tables, counters={"num_tokens_dropped": num_dropped}
    )
