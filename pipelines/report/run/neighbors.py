"""What is nearest to some held-out samples: training images by features, images by likelihood."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
import torch.nn.functional as F

from orchestration import Dataset
from pipelines.pretrain.evaluation.features import IMAGES, features_of
from pipelines.pretrain.evaluation.likelihood import score_matrix
from pipelines.pretrain.evaluation.slices import LIKELIHOOD
from pipelines.readers.rows import RowReader
from pipelines.readers.spread import spread
from pipelines.report.contact_sheets import data_uri
from pipelines.report.predicted import clipped
from tokenizer.text import TextTokenizer

_NUM_QUERIES: Final = 5
_NUM_FOUND: Final = 5
_LONGEST_SIDE: Final = 96


@dataclass(frozen=True)
class Neighbor:
    """A candidate; its image is a data URI, its title untrusted text."""

    image: str
    title: str
    score: float
    is_right: bool
    "Whether it has the query's label, or is the query's own image."


@dataclass(frozen=True)
class Query:
    """A held-out sample and what is nearest to it, the nearest first."""

    image: str
    "Data URI; empty of a caption."
    title: str
    "Its label or its caption, untrusted text."
    found: Sequence[Neighbor]


def nearest_images(evaluation: Dataset, images: Dataset) -> list[Query]:
    """Return held-out labeled images with the training images of the most similar features.

    Args:
        evaluation: output of the stage ``evaluate``.
        images: output of ``image_tokens``, whose rows it compared.
    """
    table = _of_image_rows(evaluation)
    if table is None:
        return []
    bank = table.filter(pc.equal(table["table"], "train"))
    queries = table.filter(pc.equal(table["table"], "held_out"))
    if not bank.num_rows or not queries.num_rows:
        return []
    queries = queries.take(spread(queries.num_rows, _NUM_QUERIES))
    scores = (
        F.normalize(features_of(queries, "trained"), dim=1)
        @ F.normalize(features_of(bank, "trained"), dim=1).T
    )
    best = scores.topk(min(_NUM_FOUND, bank.num_rows), dim=1)
    asked = _thumbnails(images.table("held_out"), queries["row"].to_pylist())
    rows, labels = bank["row"].to_pylist(), bank["label"].to_pylist()
    shown = _thumbnails(images.table("train"), [rows[i] for some in best.indices for i in some])
    return [
        Query(
            asked[row],
            label or "",
            [
                Neighbor(shown[rows[i]], labels[i] or "", score, labels[i] == label)
                for i, score in zip(indices, values, strict=True)
            ],
        )
        for row, label, indices, values in zip(
            queries["row"].to_pylist(),
            queries["label"].to_pylist(),
            best.indices.tolist(),
            best.values.tolist(),
            strict=True,
        )
    ]


def likely_images(evaluation: Dataset, pairs: Dataset, text: TextTokenizer) -> list[Query]:
    """Return held-out captions with the images that make their words most likely.

    Args:
        evaluation: output of the stage ``evaluate``.
        pairs: output of ``pair_tokens``, whose rows it compared.
        text: the text tokenizer.
    """
    columns = evaluation.manifest.columns.get(LIKELIHOOD)
    if columns is None or "row: int64" not in columns:
        return []
    table = evaluation.table(LIKELIHOOD).read().sort_by("caption")
    rows: list[int] = table["row"].to_pylist()
    scores = score_matrix(table).T  # of captions and images
    chosen = spread(len(rows), _NUM_QUERIES)
    best = scores[chosen].topk(min(_NUM_FOUND, len(rows)), dim=1)
    held_out = pairs.table("held_out")
    shown = _thumbnails(held_out, [rows[i] for some in best.indices for i in some])
    asked = np.array([rows[i] for i in chosen], np.int64)
    captions = RowReader(held_out, ["captions"]).take(asked)["captions"].to_pylist()
    return [
        Query(
            "",
            clipped(text.decode(of_pair[0])),
            [
                Neighbor(shown[rows[i]], "", score, i == caption)
                for i, score in zip(indices, values, strict=True)
            ],
        )
        for caption, of_pair, indices, values in zip(
            chosen, captions, best.indices.tolist(), best.values.tolist(), strict=True
        )
    ]


def _of_image_rows(evaluation: Dataset) -> pa.Table | None:
    columns = evaluation.manifest.columns.get(IMAGES)
    if columns is None or "row: int64" not in columns:  # of an evaluation by earlier code
        return None
    table = evaluation.table(IMAGES).read(columns=["stream", "table", "row", "label", "trained"])
    return table.filter(pc.equal(table["stream"], "image"))


def _thumbnails(images: Dataset, rows: Sequence[int | torch.Tensor]) -> dict[int, str]:
    numbers = np.array(sorted({int(row) for row in rows}), np.int64)
    table = RowReader(images, ["sample_id", "jpeg"]).take(numbers)
    return {
        int(number): data_uri(row["jpeg"], row["sample_id"], _LONGEST_SIDE)
        for number, row in zip(numbers, table.to_pylist(), strict=True)
    }
