"""Which rows an evaluation uses, and for what, in slices of a forward pass.

Rows are drawn from the whole tables by the seed. Of held-out pairs with equal first captions one is
kept where pairs are compared with each other, as none of them could be told from the others.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from model.training import randomness
from model.training.batch import STREAMS, Stream
from orchestration import Dataset, Slice
from orchestration.slice_commit import read_tables
from pipelines.pretrain.evaluation.draw_images import draw_images
from pipelines.pretrain.evaluation.params import Params
from pipelines.readers.rows import RowReader
from pipelines.readers.spread import spread

Ints = NDArray[np.int64]

MASKED: Final = "masked"
GROUNDING: Final = "grounding"
LIKELIHOOD: Final = "likelihood"
FEATURES: Final = "features"
SHOWN_IMAGES: Final = "shown_images"
SHOWN_WORDS: Final = "shown_words"
_MIN_GROUNDING: Final = 3
"Pairs in a slice: a pair, another one, and a third one for the control."
_CAPTIONS: Final = 4
"Captions in a slice of retrieval by likelihood; each is compared with all images."
_NUM_SHOWN: Final = 6
"Images, and pairs, of which predictions are kept."
_NUM_AVERAGED: Final = 512
"Training images over which the patches of a code are averaged."
_HELD_OUT, _LABELED, _TRAIN = 31, 32, 33
"Purposes of draws."


@dataclass(frozen=True)
class EvaluationSlices:
    """The rows to process; a group is empty where a corpus has no such rows."""

    masked: list[Slice]
    "Held-out rows whose masked positions are predicted."
    grounding: list[Slice]
    "Held-out pairs that are predicted with their own and with another pair's image or caption."
    likelihood: list[Slice]
    "Captions of held-out pairs whose words are predicted with each of several images."
    bank_images: list[Slice]
    "Labeled training images."
    query_images: list[Slice]
    "Labeled held-out images."
    bank_texts: list[Slice]
    "Training texts."
    query_texts: list[Slice]
    "Held-out texts."
    bank_pairs: list[Slice]
    "Training pairs."
    query_pairs: list[Slice]
    "Held-out pairs."
    shown: list[Slice]
    "A few held-out images and pairs, of which predictions are kept for the run report."

    @property
    def all(self) -> list[Slice]:
        """Return all slices."""
        return [slice_ for field in fields(self) for slice_ in getattr(self, field.name)]

    @property
    def measured(self) -> list[Slice]:
        """Return the slices from which numbers are computed."""
        return [slice_ for slice_ in self.all if slice_ not in self.shown]


def evaluation_slices(
    inputs: Mapping[Stream, Dataset], params: Params, seed: int
) -> EvaluationSlices:
    """Draw the rows to process from the token datasets."""
    held_out = {stream: _drawn(inputs[stream], "held_out", params, seed) for stream in STREAMS}
    bank, queries = _images_to_compare(inputs["image"], params, seed)
    train = {stream: _drawn(inputs[stream], "train", params, seed) for stream in STREAMS}
    pairs = _with_different_captions(inputs["pair"].table("held_out"), held_out["pair"])
    size = params.batch_size
    return EvaluationSlices(
        masked=[
            slice_
            for stream in STREAMS
            for slice_ in _slices(MASKED, stream, "held_out", held_out[stream], size)
        ],
        grounding=list(_grounding_slices(pairs, size)),
        likelihood=list(_likelihood_slices(pairs, params, seed)),
        bank_images=_slices(FEATURES, "image", "train", bank, size),
        query_images=_slices(FEATURES, "image", "held_out", queries, size),
        bank_texts=_slices(FEATURES, "text", "train", train["text"], size),
        query_texts=_slices(FEATURES, "text", "held_out", held_out["text"], size),
        bank_pairs=_slices(FEATURES, "pair", "train", train["pair"], size),
        query_pairs=_slices(FEATURES, "pair", "held_out", pairs, size),
        shown=list(_shown_slices({"image": held_out["image"], "pair": pairs}, train)),
    )


def _drawn(dataset: Dataset, table: str, params: Params, seed: int) -> Ints:
    """Return rows drawn from the whole table, ascending."""
    total = dataset.table(table).num_rows
    purpose, most = (
        (_HELD_OUT, params.max_rows) if table == "held_out" else (_TRAIN, params.max_tuning_rows)
    )
    if total <= most:
        return np.arange(total)
    return np.sort(randomness.generator(seed, purpose).choice(total, most, replace=False))


def _images_to_compare(images: Dataset, params: Params, seed: int) -> tuple[Ints, Ints]:
    """Return the rows of labeled images in ``train`` and in ``held_out``."""
    train = images.table("train")
    groups = train.row_groups()
    return draw_images(
        _labels(train),
        np.repeat(np.arange(len(groups)), [group.num_rows for group in groups]),
        _labels(images.table("held_out")),
        num_neighbors=params.num_neighbors,
        max_bank=params.max_bank_images,
        max_queries=params.max_rows,
        seed=int(randomness.bits(seed, _LABELED)),
    )


def _labels(dataset: Dataset) -> pa.Array:
    paths = [part.path for part in dataset.parts]
    if not paths:
        return pa.array([], pa.string())
    return read_tables(dataset.folder, paths, ["label"])["label"].combine_chunks()


def _with_different_captions(pairs: Dataset, rows: Ints) -> Ints:
    """Return the rows whose first caption no earlier one of them has."""
    if not len(rows):
        return rows
    captions = RowReader(pairs, ["captions"]).take(rows)["captions"].to_pylist()
    first: dict[tuple[int, ...], int] = {}
    for row, texts in zip(rows.tolist(), captions, strict=True):
        first.setdefault(tuple(texts[0]), row)
    return np.array(sorted(first.values()), np.int64)


def _grounding_slices(rows: Ints, size: int) -> Iterator[Slice]:
    """Yield slices of nearly equal size, none of which is too small to compare its pairs."""
    if len(rows) < _MIN_GROUNDING:
        return
    number = max(min(-(-len(rows) // size), len(rows) // _MIN_GROUNDING), 1)
    for i, some in enumerate(np.array_split(rows, number)):
        yield Slice(f"{GROUNDING}-{i:08d}", {"use": GROUNDING, "rows": some.tolist()}, len(some))


def _likelihood_slices(rows: Ints, params: Params, seed: int) -> Iterator[Slice]:
    most = params.max_likelihood_pairs
    if len(rows) > most:
        rows = np.sort(randomness.generator(seed, _HELD_OUT, 1).choice(rows, most, replace=False))
    if len(rows) < 2:
        return
    for start in range(0, len(rows), _CAPTIONS):
        mine = range(start, min(start + _CAPTIONS, len(rows)))
        payload: dict[str, Any] = {"use": LIKELIHOOD, "rows": rows.tolist(), "captions": [*mine]}
        yield Slice(f"{LIKELIHOOD}-{start:08d}", payload, len(mine))


def _shown_slices(held_out: Mapping[Stream, Ints], train: Mapping[Stream, Ints]) -> Iterator[Slice]:
    """Yield the samples to show; codes are drawn only if there are training images to average."""
    for stream, rows in held_out.items():
        shown = rows[spread(len(rows), _NUM_SHOWN)]
        if len(shown) > (stream == "pair") and len(train[stream]):
            averaged = train[stream][spread(len(train[stream]), _NUM_AVERAGED)]
            payload: dict[str, Any] = {"use": SHOWN_IMAGES, "stream": stream, "table": "held_out"}
            payload |= {"rows": shown.tolist(), "averaged_rows": averaged.tolist()}
            yield Slice(f"{SHOWN_IMAGES}-{stream}", payload, len(shown))
    shown = held_out["pair"][spread(len(held_out["pair"]), _NUM_SHOWN)]
    if len(shown) > 1:  # each pair has another one
        payload = {"use": SHOWN_WORDS, "stream": "pair", "table": "held_out"}
        yield Slice(SHOWN_WORDS, {**payload, "rows": shown.tolist()}, len(shown))


def _slices(use: str, stream: Stream, table: str, rows: Ints, size: int) -> list[Slice]:
    """Return slices of some rows of a table; ``use`` says what is computed from them."""
    return [
        Slice(
            f"{use}-{stream}-{table}-{start:08d}",
            {
                "use": use,
                "stream": stream,
                "table": table,
                "rows": rows[start : start + size].tolist(),
            },
            len(rows[start : start + size]),
        )
        for start in range(0, len(rows), size)
    ]
