"""Text tokens: documents → packed sequences.

In: documents, the text tokenizer. Out: ``train`` and ``held_out``, each ``ids``:
fixed_size_list<uint16, L>; source: string. Documents of one source, each as ``<s> … </s>``, are
concatenated and cut every L tokens; the remainder at the end of a slice is dropped and counted
(``num_tokens_dropped``). A slice is a run of row groups of documents, which are read, encoded and
written one after the other.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from orchestration import Context, Dataset, Output, Slice, Stage, feeding
from orchestration.params import StageParams
from orchestration.reporting.usage import WORKER_BYTES, Expected, Workers
from orchestration.slices import group_slices, read_groups
from pipelines.tokens.held_out import is_held_out
from pipelines.tokens.text_tokenizer import MODEL_FILE
from tokenizer.packing import Packer
from tokenizer.text import TextTokenizer

_GROUP_BYTES: Final = 200_000_000
"Memory of a row group of documents with its tokens."
_WRITTEN_BYTES: Final = 12
"Memory of a token of the sequences that are not written yet, of both tables."


class Params(StageParams):
    """Packing of documents into sequences."""

    length: int = Field(default=128, ge=8)
    "Number of tokens in a sequence."
    held_out_fraction: float = Field(default=0.005, ge=0, lt=1)
    "Expected fraction of documents held out for evaluation, where the sources do not say which."
    slice_bytes: int = Field(default=1 << 26, ge=1)
    "Largest size of a slice's texts in bytes; a slice holds at least one row group of documents."
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
        version=4,
        workers=partial(workers, params),
    )


def workers(params: Params, inputs: Mapping[str, Expected]) -> Workers:
    """Predict the memory of a worker: a row group of documents, and a row group of sequences."""
    written = params.row_group_rows * params.length * _WRITTEN_BYTES
    return Workers(WORKER_BYTES + _GROUP_BYTES + written)


def run(context: Context, params: Params) -> None:
    """Pack each slice of documents in one worker."""
    datasets = context.inputs("documents")
    slices = [
        Slice(f"{number:03d}-{slice_.id}", {"dataset": number, **slice_.payload}, slice_.num_rows)
        for number, dataset in enumerate(datasets)
        for slice_ in group_slices(dataset, "text", params.slice_bytes)
    ]
    tokenizer = context.input("tokenizer")
    names, held_out_names = (context.stage.inputs[role] for role in ("documents", "held_out"))
    whole = [number for number, name in enumerate(names) if name in held_out_names]
    context.map_slices(
        slices,
        partial(pack_slice, params, context.seed, whole, tokenizer, datasets),
        row_group_rows=params.row_group_rows,
    )
    schema = pa.schema([("ids", pa.list_(pa.uint16(), params.length)), ("source", pa.string())])
    context.commit(slices, schemas={"train": schema, "held_out": schema})


def pack_slice(
    params: Params,
    seed: int,
    whole: Sequence[int],
    tokenizer: Dataset,
    datasets: Sequence[Dataset],
    slice_: Slice,
) -> Iterator[Output]:
    """Encode and pack the documents of one slice; an output has whole row groups, the last a rest.

    Args:
        params: the recipe's section.
        seed: of the recipe.
        whole: numbers of the datasets that are held out as a whole.
        tokenizer: dataset of ``text_tokenizer``.
        datasets: of documents.
        slice_: the slice.
    """
    text = TextTokenizer.load(tokenizer.fetch(MODEL_FILE))
    number = slice_.payload["dataset"]
    fraction = 1.0 if number in whole else params.held_out_fraction
    sides = [_Side(name, Packer(params.length)) for name in ("train", "held_out")]
    source = ""
    for rows in read_groups(datasets[number], slice_, ["doc_id", "text"]):
        doc_ids = rows["doc_id"].to_pylist()
        source = doc_ids[0].partition("/")[0]  # one for the whole dataset
        held_out = [is_held_out("document", doc_id, fraction, seed) for doc_id in doc_ids]
        texts = rows["text"].to_pylist()
        for side in sides:
            wanted = side.name == "held_out"
            chosen = [text for text, out in zip(texts, held_out, strict=True) if out is wanted]
            side.add(*text.encode_flat(chosen))
        tables = {side.name: side.taken(params.row_group_rows, source) for side in sides}
        yield Output(num_rows_in=rows.num_rows, tables=tables)
    yield Output(
        num_rows_in=0,
        tables={side.name: side.taken(1, source) for side in sides},
        counters={"num_tokens_dropped": sum(side.packer.num_left for side in sides)},
    )


class _Side:
    """The sequences of one table that are not written yet."""

    def __init__(self, name: str, packer: Packer) -> None:
        self.name = name
        self.packer = packer
        self._sequences = np.empty((0, packer.length), np.uint16)

    def add(self, ids: NDArray[np.int32], lengths: NDArray[np.int64]) -> None:
        """Pack further documents."""
        self._sequences = np.concatenate([self._sequences, self.packer.add(ids, lengths)])

    def taken(self, multiple: int, source: str) -> pa.Table:
        """Remove as many sequences as a multiple of a number allows, and return them as a table."""
        number = len(self._sequences) // multiple * multiple
        taken, self._sequences = self._sequences[:number], self._sequences[number:].copy()
        ids = pa.FixedSizeListArray.from_arrays(pa.array(taken.reshape(-1)), self.packer.length)
        return pa.table({"ids": ids, "source": pa.array([source] * number, pa.string())})
