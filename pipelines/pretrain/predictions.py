"""Predictions of a network on held-out rows, and the numbers that follow from them.

The stage ``evaluate`` computes them for the last checkpoint, and a training may do so for others
(``evaluate_while_training.py``). The rows are drawn from the whole tables by the seed; masks and
views are drawn once from it, without color jitter and stochastic depth.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field

from model import BEiT3
from model.training import objectives, randomness
from model.training.batch import STREAMS, Stream
from orchestration import Dataset, Output, Slice
from orchestration.params import OPERATIONAL, GpusPerActor, StageParams
from orchestration.slice_commit import read_tables
from pipelines.pretrain.neighbors import draw_images, neighbor_numbers
from pipelines.pretrain.samples import FeedParams, SampleBuilder
from pipelines.readers.rows import RowReader
from pipelines.tokens.text_tokenizer import MODEL_FILE
from tokenizer.text import TextTokenizer

Ints = NDArray[np.int64]

_MORE_COLUMNS: Final[Mapping[Stream, tuple[str, ...]]] = {
    "image": ("label",),
    "text": (),
    "pair": (),
}
_STEP: Final = 1 << 40
"Step of the random numbers, beyond any training step."

PREDICTIONS: Final = pa.schema(
    [
        ("objective", pa.string()),
        ("loss_sum", pa.float64()),
        ("num_correct", pa.int64()),
        ("targets", pa.list_(pa.int32())),
        ("features", pa.list_(pa.list_(pa.float32()))),
        ("labels", pa.list_(pa.string())),
    ]
)


class Params(StageParams):
    """What is measured, and with which resources."""

    max_rows: int = Field(default=4096, ge=1)
    "Largest number of held-out rows of each stream to evaluate."
    num_neighbors: int = Field(default=10, ge=1)
    "Number of nearest neighbors that vote for a label (k)."
    max_bank_images: int = Field(default=20_000, ge=1)
    "Largest number of training images among which neighbors are searched."
    batch_size: int = Field(default=64, ge=1)
    "Number of rows in a forward pass."
    num_actors: Annotated[int, OPERATIONAL] = Field(default=1, ge=1)
    "Number of actors that process slices in parallel."
    cpus_per_actor: Annotated[int, OPERATIONAL] = Field(default=1, ge=1)
    "Number of CPU cores and threads per actor."
    gpus_per_actor: GpusPerActor = 0


@dataclass(frozen=True)
class EvaluationSlices:
    """The rows to process, in slices of a forward pass."""

    held_out: list[Slice]
    "Held-out rows whose masked positions are predicted."
    bank: list[Slice]
    "Labeled training images among which neighbors are searched."
    queries: list[Slice]
    "Labeled held-out images."

    @property
    def all(self) -> list[Slice]:
        """Return all slices."""
        return [*self.held_out, *self.bank, *self.queries]


def evaluation_slices(
    inputs: Mapping[Stream, Dataset], params: Params, seed: int
) -> EvaluationSlices:
    """Draw the rows to process from the token datasets."""
    held_out = [
        slice_
        for stream in STREAMS
        for slice_ in _slices("predict", stream, _draw(inputs[stream], params, seed), params)
    ]
    bank_rows, query_rows = _images_to_compare(inputs["image"], params, seed)
    return EvaluationSlices(
        held_out,
        _slices("bank", "image", bank_rows, params),
        _slices("query", "image", query_rows, params),
    )


def evaluation_numbers(
    slices: EvaluationSlices, read: Callable[[list[Slice]], pa.Table], num_neighbors: int
) -> dict[str, float]:
    """Return the losses, accuracies and baselines that follow from the predictions.

    Args:
        slices: what was predicted.
        read: returns the predictions of some slices, as :class:`Predictor` gives them.
        num_neighbors: number of neighbors that vote.
    """
    numbers = objective_numbers(read(slices.held_out)) if slices.held_out else {}
    if slices.bank:
        numbers |= neighbor_numbers(read(slices.bank), read(slices.queries), num_neighbors)
    return numbers


def _draw(dataset: Dataset, params: Params, seed: int) -> Ints:
    """Return held-out rows drawn from the whole table, ascending."""
    total = dataset.table("held_out").num_rows
    return np.sort(randomness.generator(seed, 31).permutation(total)[: params.max_rows])


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
        seed=int(randomness.bits(seed, 32)),
    )


def _labels(dataset: Dataset) -> pa.Array:
    paths = [part.path for part in dataset.parts]
    if not paths:
        return pa.array([], pa.string())
    return read_tables(dataset.folder, paths, ["label"])["label"].combine_chunks()


def _slices(use: str, stream: Stream, rows: Ints, params: Params) -> list[Slice]:
    """Return slices of some rows of a stream; ``use`` says what is computed from them."""
    return [
        Slice(
            f"{use}-{stream}-{start:08d}",
            {
                "use": use,
                "stream": stream,
                "rows": rows[start : start + params.batch_size].tolist(),
            },
        )
        for start in range(0, len(rows), params.batch_size)
    ]


class Predictor:
    """Predicts the masked positions of one slice, or computes the features of its images."""

    def __init__(
        self,
        params: Params,
        feed: FeedParams,
        seed: int,
        load: Callable[[], BEiT3],
        text: Dataset,
        inputs: Mapping[Stream, Dataset],
    ) -> None:
        """Load the network.

        Args:
            params: of the evaluation; a GPU is used if they reserve one.
            feed: how the training's samples are built.
            seed: of the recipe.
            load: returns the network.
            text: output of the stage ``text_tokenizer``.
            inputs: token dataset of each stream.
        """
        torch.set_num_threads(params.cpus_per_actor)
        self.device = torch.device("cuda" if params.gpus_per_actor else "cpu")
        self.network = load().to(self.device)
        fixed = FeedParams(**{**vars(feed), "color_jitter": 0.0, "drop_path": 0.0})
        tokenizer = TextTokenizer.load(text.fetch(MODEL_FILE))
        self.builders = {
            stream: SampleBuilder(
                stream, self.network.config, tokenizer, fixed, int(randomness.bits(seed, 30))
            )
            for stream in STREAMS
        }
        self.readers = {
            (stream, table): RowReader(
                inputs[stream].table(table),
                [*self.builders[stream].columns, *_MORE_COLUMNS[stream]],
            )
            for stream in STREAMS
            for table in ("train", "held_out")
        }

    @torch.no_grad()
    def __call__(self, slice_: Slice) -> Output:
        """Process one slice."""
        use, stream = slice_.payload["use"], slice_.payload["stream"]
        numbers = np.array(slice_.payload["rows"])
        rows = self.readers[stream, "train" if use == "bank" else "held_out"].take(numbers)
        batch = self.builders[stream].build(rows, _STEP, numbers).to(self.device)
        out: list[dict[str, Any]] = []
        if use == "predict":
            for objective, made in objectives.predict(self.network, batch).items():
                out.append(
                    {
                        "objective": objective,
                        "loss_sum": float(made.loss_sum),
                        "num_correct": int(made.num_correct),
                        "targets": made.targets.tolist(),
                    }
                )
        else:
            hidden = self.network(images=batch.images).patches.mean(1)
            out.append(
                {
                    "objective": "features",
                    "features": F.normalize(hidden, dim=-1).tolist(),
                    "labels": rows["label"].to_pylist(),
                }
            )
        return Output(
            num_rows_in=rows.num_rows, tables={"data": pa.Table.from_pylist(out, PREDICTIONS)}
        )


def objective_numbers(predictions: pa.Table) -> dict[str, float]:
    """Return loss and accuracy of each objective, and of the best constant guess."""
    numbers: dict[str, float] = {}
    rows = predictions.select(["objective", "loss_sum", "num_correct", "targets"]).to_pylist()
    for objective in (entry.name for entry in objectives.OBJECTIVES):
        mine = [row for row in rows if row["objective"] == objective]
        targets = np.concatenate([row["targets"] for row in mine]) if mine else np.empty(0)
        if not len(targets):
            continue
        frequency = np.unique(targets, return_counts=True)[1] / len(targets)
        numbers |= {
            f"loss/{objective}": sum(row["loss_sum"] for row in mine) / len(targets),
            f"accuracy/{objective}": sum(row["num_correct"] for row in mine) / len(targets),
            f"baseline_loss/{objective}": float(-(frequency * np.log(frequency)).sum()),
            f"baseline_accuracy/{objective}": float(frequency.max()),
            f"num_targets/{objective}": len(targets),
        }
    return numbers
