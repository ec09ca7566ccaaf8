"""Predicted label maps as files: what ADE20K's evaluation server takes.

Format: "Submission format" of https://github.com/CSAILVision/sceneparsing. A zip archive holds a
PNG for each image, ``<id of the example>.png``, in the image's size. Its pixels have the values or
colors that the list of classes states: 1 to 150 of ADE20K.
"""

import io
import zipfile
from typing import Final

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dataprep.tasks.label_classes import IGNORED, LabelClasses
from dataprep.tasks.stored_label_maps import restored

_DATE: Final = (1980, 1, 1, 0, 0, 0)
"The earliest that a zip archive can state, so that equal predictions give equal bytes."


def zip_of(predictions: pa.Table, classes: LabelClasses) -> bytes:
    """Return the archive of predicted label maps.

    Args:
        predictions: rows of ``dataprep.schemas.PREDICTIONS``.
        classes: what stands for the classes.

    Raises:
        ValueError: a predicted class is not in the list.
    """
    found = pc.unique(pc.list_flatten(predictions["labels"])).to_pylist()
    if unknown := sorted({*found} - {*classes.names}):
        raise ValueError(f"the list task.classes has no class {unknown[0]!r}")
    numbers = {name: number for number, name in enumerate(classes.names)}
    table, file = _table(classes), io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:  # PNGs are compressed already
        for batch in predictions.select(["example_id", "labels", "label_map"]).to_batches():
            for row in batch.to_pylist():
                pixels = table[restored(row["label_map"], row["labels"], numbers)]
                png = bytes(cv2.imencode(".png", pixels)[1])
                archive.writestr(zipfile.ZipInfo(f"{row['example_id']}.png", _DATE), png)
    return file.getvalue()


def _table(classes: LabelClasses) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return the value, or blue, green and red, of each class number; 0 of no class."""
    if classes.colors:
        colors = np.zeros((IGNORED + 1, 3), np.uint8)
        for color, number in classes.colors.items():
            colors[number] = color[::-1]
        colors[IGNORED] = 0
        return colors
    values = np.zeros(IGNORED + 1, np.uint16)
    values[list(classes.values.values())] = list(classes.values)
    values[IGNORED] = 0
    return values.astype(np.uint8) if values.max() < 1 << 8 else values
