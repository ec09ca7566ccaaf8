"""Committed examples and predictions of a split, made by hand."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from dataprep.schemas import EXAMPLES, PREDICTIONS
from orchestration import Dataset
from orchestration.storage.store import Store
from tests.committing import commit_tables


def jpeg(seed: int, height: int = 40, width: int = 60) -> bytes:
    """Noise, the image that compresses worst."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1])


def commit_examples(folder: Store, rows: Sequence[dict[str, Any]], per_part: int = 7) -> Dataset:
    """Commit ``prepare/<split>``; what a row does not say is empty."""
    empty = {"images": [], "texts": [], "labels": [], "main_label": ""}
    return _committed(folder, [empty | row for row in rows], EXAMPLES, per_part)


def commit_predictions(folder: Store, rows: Sequence[dict[str, Any]], per_part: int = 5) -> Dataset:
    """Commit ``predict/<split>``; what a row does not say is empty."""
    empty = {"labels": [], "scores": [], "features": []}
    numbered = [{"row": i} | empty | row for i, row in enumerate(rows)]
    return _committed(folder, numbered, PREDICTIONS, per_part)


def _committed(
    folder: Store, rows: Sequence[dict[str, Any]], schema: pa.Schema, per_part: int
) -> Dataset:
    table = pa.Table.from_pylist(list(rows), schema)
    parts = [table.slice(i, per_part) for i in range(0, max(table.num_rows, 1), per_part)]
    return commit_tables(folder, parts, row_group_rows=3)
