"""Contact sheets: thumbnails of some stored images, as data URIs for a page."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dataprep.images import Pixels, decode_stored, encode_jpeg, fitted, resize
from orchestration import Dataset
from pipelines.readers.rows import RowReader
from pipelines.readers.spread import spread
from pipelines.report.column_counts import find_rows, rows_by_reason

_QUALITY: Final = 80
_LONGEST_TITLE: Final = 300


@dataclass(frozen=True)
class Thumbnail:
    """A small JPEG for a page."""

    uri: str
    "Data URI."
    title: str
    "Sample id with captions and label; untrusted text."


@dataclass(frozen=True)
class Sheets:
    """The thumbnails of a report."""

    sources: Mapping[str, Sequence[Thumbnail]]
    "Thumbnails by name of the source."
    dropped: Mapping[str, Sequence[Thumbnail]]
    "Thumbnails of dropped images by reason."


def sheet(images: Dataset, number: int, size: int) -> list[Thumbnail]:
    """Return thumbnails of up to ``number`` images, spread evenly over a source."""
    return thumbnails(images, spread(images.num_rows, number), size)


def dropped_sheets(
    rejects: Dataset,
    images: Mapping[str, Dataset],
    reasons: Iterable[str],
    number: int,
    size: int,
) -> dict[str, list[Thumbnail]]:
    """Return thumbnails of images that curation dropped, by reason.

    Args:
        rejects: of curation.
        images: table of images by source.
        reasons: the reasons to show.
        number: largest number of images per reason.
        size: length in pixels of a thumbnail's shorter side.
    """
    chosen = rows_by_reason(rejects, reasons, number)
    reader = RowReader(rejects, ["sample_id", "source"], keep=1)
    names = {
        reason: reader.take(np.array(rows, np.int64)).to_pylist()
        for reason, rows in chosen.items()
        if rows
    }
    row_numbers = {
        source: find_rows(
            dataset,
            [r["sample_id"] for rows in names.values() for r in rows if r["source"] == source],
        )
        for source, dataset in images.items()
    }
    return {
        reason: [
            thumbnail
            for source, dataset in images.items()
            for thumbnail in thumbnails(
                dataset,
                sorted(
                    row_numbers[source][row["sample_id"]]
                    for row in rows
                    if row["source"] == source and row["sample_id"] in row_numbers[source]
                ),
                size,
            )
        ]
        for reason, rows in names.items()
    }


def thumbnails(images: Dataset, rows: Sequence[int], size: int) -> list[Thumbnail]:
    """Return thumbnails of rows of a table of images."""
    if not rows:
        return []
    # One cached row group is enough: the rows are sorted and far apart.
    reader = RowReader(images, ["sample_id", "jpeg", "captions", "label"], keep=1)
    table = reader.take(np.array(rows, np.int64))
    return [
        Thumbnail(_fitted_uri(row["jpeg"], row["sample_id"], size), _title(row))
        for row in table.to_pylist()
    ]


def _title(row: Mapping[str, Any]) -> str:
    words = filter(None, [row["sample_id"], *row["captions"], row["label"]])
    return " · ".join(words)[:_LONGEST_TITLE]


def data_uri(jpeg: bytes, name: str, longest_side: int) -> str:
    """Return a small JPEG of a stored image as a data URI.

    Args:
        jpeg: bytes of the stored image.
        name: id of the image, which an error names.
        longest_side: length in pixels to which a longer image is scaled down.
    """
    pixels = decode_stored(jpeg, name)
    height, width = pixels.shape[:2]
    scale = min(1.0, longest_side / max(width, height))
    return _encoded(resize(pixels, (max(round(width * scale), 1), max(round(height * scale), 1))))


def _fitted_uri(jpeg: bytes, name: str, size: int) -> str:
    pixels = decode_stored(jpeg, name)
    return _encoded(resize(pixels, fitted(pixels.shape[1], pixels.shape[0], size)))


def _encoded(pixels: Pixels) -> str:
    return jpeg_uri(encode_jpeg(pixels, _QUALITY))


def jpeg_uri(jpeg: bytes) -> str:
    """Return a JPEG as a data URI."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
