"""Evaluate: prediction of masked positions in held-out rows, and k-nearest-neighbor accuracy.

In: a checkpoint, the three token datasets, the text tokenizer. Out: ``report.json`` with loss and
masked accuracy of each objective beside the best constant guess on the same targets, and the
k-nearest-neighbor accuracy of the vision encoder on labeled images beside guessing the most
frequent label. Masks and views are drawn once from the seed, without color jitter and stochastic
depth.
"""

import json
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Final

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from pydantic import Field

from model.training import objectives, randomness
from model.training.batch import STREAMS, Stream
from orchestration import Context, Dataset, Output, Slice, Stage, feeding
from orchestration.params import OPERATIONAL, StageParams
from pipelines.pretrain.checkpoints import load_network
from pipelines.pretrain.feed import FeedParams, SampleBuilder
from pipelines.pretrain.params import Params as PretrainParams
from pipelines.pretrain.pretrain import ROLES
from pipelines.tokens.text_tokenizer import MODEL_FILE
from tokenizer.text import TextTokenizer

REPORT_FILE: Final = "report.json"
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
    num_actors: Annotated[int, OPERATIONAL] = 1
    "Number of actors that process slices in parallel."
    cpus_per_actor: Annotated[float, OPERATIONAL] = 1
    "Number of CPU cores and threads per actor."
    use_gpu: Annotated[bool, OPERATIONAL] = False
    "Reserve one GPU per actor."


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
        version=2,
    )


def run(context: Context, params: Params, train: PretrainParams) -> None:
    """Predict slice by slice in actors that hold the network, then sum up."""
    inputs = {stream: context.input(role) for stream, role in ROLES.items()}
    slices = [
        Slice(f"{stream}-{table}-{start:08d}", {"stream": stream, "table": table, "start": start})
        for stream, table, rows in (
            *((stream, "held_out", params.max_rows) for stream in STREAMS),
            ("image", "train", params.max_bank_images),
        )
        for start in range(0, min(rows, inputs[stream].table(table).num_rows), params.batch_size)
    ]
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
        num_gpus=int(params.use_gpu),
    )
    held_out = [slice_ for slice_ in slices if slice_.payload["table"] == "held_out"]
    numbers = objective_numbers(context.read_parts(held_out))
    image_slices = [slice_ for slice_ in held_out if slice_.payload["stream"] == "image"]
    bank = [slice_ for slice_ in slices if slice_.payload["table"] == "train"]
    if image_slices and bank:
        numbers |= neighbor_numbers(
            context.read_parts(bank), context.read_parts(image_slices), params.num_neighbors
        )
    report = json.dumps(numbers, indent=1, sort_keys=True).encode()
    context.folder.write_bytes(REPORT_FILE, report)
    context.log.artifact(context.folder.fetch(REPORT_FILE))
    context.commit(slices, files=[REPORT_FILE], numbers=numbers)


class Predictor:
    """Predicts the masked positions of one slice."""

    def __init__(
        self,
        params: Params,
        feed: FeedParams,
        seed: int,
        checkpoint: Dataset,
        text: Dataset,
        inputs: Mapping[Stream, Dataset],
    ) -> None:
        torch.set_num_threads(max(int(params.cpus_per_actor), 1))
        self.params, self.inputs = params, inputs
        self.device = torch.device("cuda" if params.use_gpu else "cpu")
        self.network = load_network(checkpoint).to(self.device)
        fixed = FeedParams(**{**vars(feed), "color_jitter": 0.0, "drop_path": 0.0})
        tokenizer = TextTokenizer.load(text.fetch(MODEL_FILE))
        self.builders = {
            stream: SampleBuilder(
                stream, self.network.config, tokenizer, fixed, int(randomness.bits(seed, 30))
            )
            for stream in STREAMS
        }

    @torch.no_grad()
    def __call__(self, slice_: Slice) -> Output:
        """Process one slice."""
        stream, table, start = (slice_.payload[key] for key in ("stream", "table", "start"))
        rows = self.inputs[stream].table(table).read(start, start + self.params.batch_size)
        slots = np.arange(start, start + rows.num_rows)
        batch = self.builders[stream].build(rows, _STEP, slots).to(self.device)
        out: list[dict[str, Any]] = []
        if table == "held_out":
            for objective, made in objectives.predict(self.network, batch).items():
                out.append(
                    {
                        "objective": objective,
                        "loss_sum": float(made.loss_sum),
                        "num_correct": int(made.num_correct),
                        "targets": made.targets.tolist(),
                    }
                )
        if stream == "image":
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


def neighbor_numbers(bank: pa.Table, queries: pa.Table, k: int) -> dict[str, float]:
    """Return the fraction of queries whose k nearest neighbors vote for the right label."""
    bank_features, bank_labels = _features(bank)
    query_features, true_labels = _features(queries)
    similarity = query_features @ bank_features.T
    nearest = similarity.topk(min(k, len(bank_features)), dim=1)
    correct = 0
    for row, label in zip(nearest.indices.tolist(), true_labels, strict=True):
        votes = [bank_labels[i] for i in row]  # nearest first, so ties go to the nearer neighbor
        correct += max(votes, key=votes.count) == label
    return {
        "accuracy/knn": correct / len(true_labels),
        "baseline_accuracy/knn": max(map(true_labels.count, true_labels)) / len(true_labels),
    }


def _features(table: pa.Table) -> tuple[torch.Tensor, list[Any]]:
    rows = [row for row in table.to_pylist() if row["objective"] == "features"]
    features = torch.tensor([feature for row in rows for feature in row["features"]])
    return features, [label for row in rows for label in row["labels"]]
