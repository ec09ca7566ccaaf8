"""Reads the truth of a web's tasks, and what can be seen in its images."""

from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from dataprep.miniweb.corpora import TASK_TRUTH
from dataprep.miniweb.grammar import BACKGROUNDS, COLORS


def truth(web: Path, task: str) -> dict[tuple[str, str], dict]:
    rows = [row for row in pq.read_table(web / TASK_TRUTH).to_pylist() if row["task"] == task]
    found = {(row["split"], row["example_id"]): row for row in rows}
    assert len(found) == len(rows) > 0
    return found


def outcomes(rows: dict[tuple[str, str], dict]) -> set[str]:
    return {row["outcome"] for row in rows.values()}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def background(path: Path) -> str:
    """The background whose color is nearest to that of most pixels of the border, when lit."""
    image = pixels(path)
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    color = np.median(border, axis=0) / 0.94
    return min(BACKGROUNDS, key=lambda name: np.abs(color - BACKGROUNDS[name]).sum())


def colors(path: Path) -> set[str]:
    """The shapes' colors that some pixels have; a JPEG of small dots has them less exactly."""
    image, (tolerance, fewest) = pixels(path), (1, 15) if path.suffix == ".png" else (60, 4)
    near = {name: np.abs(image - rgb).max(2) < tolerance for name, rgb in COLORS.items()}
    return {name for name, mask in near.items() if mask.sum() >= fewest}


def num_shapes(path: Path) -> int:
    """The connected parts of a PNG that differ from the color at the start of their row."""
    image = pixels(path)
    mask = (image != image[:, :1]).any(2).astype(np.uint8)
    return cv2.connectedComponents(mask)[0] - 1
