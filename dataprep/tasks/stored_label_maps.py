"""Label maps as rows of examples and predictions hold them.

A row names its classes in ``labels``; each pixel of ``label_map``, a gray PNG, has the place of its
class among them, or ``IGNORED``. So a row can be read without the list of all classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dataprep.sources.folders import FolderFiles
from dataprep.tasks.label_classes import IGNORED, LabelClasses
from dataprep.tasks.label_maps import LabelMap, read_label_map


@dataclass(frozen=True)
class LabelMapFiles:
    """Where the label maps of a split lie."""

    folder: Path | None
    "None without label maps."
    classes: LabelClasses

    def read(self, name: str, size: tuple[int, int]) -> tuple[bytes, list[str]]:
        """Return a label map as a row holds it, and its ``labels``.

        Args:
            name: of the file.
            size: width and height of the image that it belongs to.

        Raises:
            MemberError: there is no such file, or it cannot be read.
            RowError: see ``read_label_map``.
        """
        assert self.folder is not None
        labels = read_label_map(FolderFiles(self.folder).read(name), self.classes, size)
        return stored(labels, self.classes.names)


def stored(labels: LabelMap, names: Sequence[str]) -> tuple[bytes, list[str]]:
    """Return a label map as a PNG and the names of its classes, most frequent first.

    Args:
        labels: (height, width), numbers of ``names`` or ``IGNORED``.
        names: of all classes.
    """
    counts = np.bincount(labels.ravel(), minlength=IGNORED + 1)[:IGNORED]
    present = [int(c) for c in np.argsort(-counts, kind="stable") if counts[c]]
    table = np.full(IGNORED + 1, IGNORED, np.uint8)
    table[present] = np.arange(len(present))
    return bytes(cv2.imencode(".png", table[labels])[1]), [names[c] for c in present]


def restored(png: bytes, names: Sequence[str], numbers: Mapping[str, int]) -> LabelMap:
    """Return the label map (height, width) in a row.

    Args:
        png: the column ``label_map``.
        names: the column ``labels``.
        numbers: number of each class, below ``IGNORED``; pixels of other classes are ignored.
    """
    places = np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED), np.uint8)
    table = np.full(IGNORED + 1, IGNORED, np.uint8)
    table[: len(names)] = [numbers.get(name, IGNORED) for name in names]
    return np.asarray(table[places], np.uint8)


def fractions(png: bytes, num_names: int) -> list[float]:
    """Return the part of the labeled pixels in a row's label map that has each of its classes."""
    places = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    counts = np.bincount(np.asarray(places).ravel(), minlength=num_names)[:num_names]
    return [float(v) for v in counts / max(counts.sum(), 1)]
