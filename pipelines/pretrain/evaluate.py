"""Evaluate: prediction of masked positions in held-out rows, and k-nearest-neighbor accuracy.

In: a checkpoint, the three token datasets, the text tokenizer. Out: ``report.json`` with loss and
masked accuracy of each objective beside the best constant guess on the same targets, and the
k-nearest-neighbor accuracy of the vision encoder on labeled images beside guessing the most
frequent label. Both use rows that the seed draws from the whole tables. Masks and views are drawn
once from the seed, without color jitter and stochastic depth.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Final

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field

from model.training import objectives, randomness
from model.training.batch import STREAMS, Stream
from orchestration import Context, Dataset, Output, Slice, Stage, feeding
from orchestration.params import OPERATIONAL, GpusPerActor, StageParams
from orchestration.reporting.usage import TORCH_BYTES, WORKER_BYTES, Expected, Workers
from orchestration.resources import Resources
from orchestration.slice_commit import read_tables
from pipelines.pretrain.checkpoints import load_network
from pipelines.pretrain.neighbors import draw_images, neighbor_numbers
from pipelines.pretrain.params import Params as PretrainParams
from pipelines.pretrain.pretrain import ROLES
from pipelines.pretrain.samples import FeedParams, SampleBuilder
from pipelines.readers.expected_memory import CUDA_BYTES, cached_bytes
from pipelines.readers.rows import CACHED_GROUPS, RowReader
from pipelines.tokens.text_tokenizer import MODEL_FILE
from tokenizer.text import TextTokenizer

Ints = NDArray[np.int64]

REPORT_FILE: Final = "report.json"
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


def stage(
    params: Params,
    *,
    seed: int,
    checkpoint: Stage,
    images: Stage,
    texts: Stage,
    pairs: Stage,
    text_tokenizer: Stage,
) -> Stage:
    """Return the stage ``evaluate``.

    Args:
        params: the recipe's section.
        seed: of the recipe.
        checkpoint: ``pretrain``, whose parameters say how samples are built.
        images: ``image_tokens``.
        texts: ``text_tokens``.
        pairs: ``pair_tokens``.
        text_tokenizer: ``text_tokenizer``.
    """
    train = checkpoint.params
    assert isinstance(train, PretrainParams)
    return Stage(
        "evaluate",
        lambda context: run(context, params, train),
        params,
        feeding(
            checkpoint=checkpoint,
            images=images,
            texts=texts,
            pairs=pairs,
            text_tokenizer=text_tokenizer,
        ),
        seed=seed,
        version=3,
        resources=Resources(params.cpus_per_actor, params.gpus_per_actor),
        workers=partial(workers, params, train, (images.name, pairs.name)),
    )


def workers(
    params: Params, train: PretrainParams, tables: Sequence[str], inputs: Mapping[str, Expected]
) -> Workers:
    """Predict an actor's memory: the network, and row groups of images and pairs."""
    network = train.network.weight_bytes() + (CUDA_BYTES if params.gpus_per_actor else 0)
    held = network + cached_bytes(inputs, tables, CACHED_GROUPS)
    return Workers(WORKER_BYTES + TORCH_BYTES + held, params.num_actors)


def run(context: Context, params: Params, train: PretrainParams) -> None:
    """Predict slice by slice in actors that hold the network, then sum up."""
    inputs = {stream: context.input(role) for stream, role in ROLES.items()}
    held_out = [
        slice_
        for stream in STREAMS
        for slice_ in _slices(
            "predict", stream, _draw(inputs[stream], params, context.seed), params
        )
    ]
    bank_rows, query_rows = _images_to_compare(inputs["image"], params, context.seed)
    bank = _slices("bank", "image", bank_rows, params)
    queries = _slices("query", "image", query_rows, params)
    slices = [*held_out, *bank, *queries]
    context.map_slices_with_actors(
        slices,
        partial(
            Predictor,
            params,
            train.feed_params(),
            context.seed,
            context.input("checkpoint"),
            context.input("text_tokenizer"),
            inputs,
        ),
        num_actors=params.num_actors,
        num_cpus=params.cpus_per_actor,
        num_gpus=params.gpus_per_actor,
    )
    numbers = objective_numbers(context.read_parts(held_out)) if held_out else {}
    if bank:
        numbers |= neighbor_numbers(
            context.read_parts(bank), context.read_parts(queries), params.num_neighbors
        )
    report = json.dumps(numbers, indent=1, sort_keys=True).encode()
    context.folder.write_bytes(REPORT_FILE, report)
    context.log.artifact(context.folder.fetch(REPORT_FILE))
    context.commit(slices, files=[REPORT_FILE], numbers=numbers)


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
        checkpoint: Dataset,
        text: Dataset,
        inputs: Mapping[Stream, Dataset],
    ) -> None:
        torch.set_num_threads(params.cpus_per_actor)
        self.device = torch.device("cuda" if params.gpus_per_actor else "cpu")
        self.network = load_network(checkpoint).to(self.device)
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
