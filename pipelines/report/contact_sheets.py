"""Contact sheets: some stored images, made small, as data URIs for a page."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dataprep.images import decode_stored, encode_jpeg, fitted, resize
from orchestration import Dataset
from pipelines.readers.rows import RowReader
from pipelines.report.column_counts import find_rows, rows_by_reason, spread

_QUALITY: Final = 80
_LONGEST_TITLE: Final = 300


@dataclass(frozen=True)
class Thumbnail:
    """A small image for a page."""

    uri: str
    title: str
    "Its id with its captions or its label, as they were found: text of strangers."


@dataclass(frozen=True)
class Sheets:
    """The images of a report."""

    sources: Mapping[str, Sequence[Thumbnail]]
    "By name."
    dropped: Mapping[str, Sequence[Thumbnail]]
    "By reason."


def sheet(images: Dataset, number: int, side: int) -> list[Thumbnail]:
    """Return images spread evenly over a source."""
    return thumbnails(images, spread(images.num_rows, number), side)


def dropped_sheets(
    rejects: Dataset,
    images: Mapping[str, Dataset],
    reasons: Iterable[str],
    number: int,
    side: int,
) -> dict[str, list[Thumbnail]]:
    """Return some of the images that curation dropped, by reason.

    Args:
        rejects: of curation.
        images: by source, where the images lie.
        reasons: to show.
        number: of images for each.
        side: of a small image.
    """
    chosen = rows_by_reason(rejects, reasons, number)
    reader = RowReader(rejects, ["sample_id", "source"], keep=1)
    names = {
        reason: reader.take(np.array(rows, np.int64)).to_pylist()
        for reason, rows in chosen.items()
        if rows
    }
    places = {
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
                    places[source][row["sample_id"]]
                    for row in rows
                    if row["source"] == source and row["sample_id"] in places[source]
                ),
                side,
            )
        ]
        for reason, rows in names.items()
    }


def thumbnails(images: Dataset, rows: Sequence[int], side: int) -> list[Thumbnail]:
    """Return rows of a table of images as small images."""
    if not rows:
        return []
    # One row group at a time: the images lie far apart, and none is read twice.
    reader = RowReader(images, ["sample_id", "jpeg", "captions", "label"], keep=1)
    table = reader.take(np.array(rows, np.int64))
    return [Thumbnail(_data_uri(row["jpeg"], side), _title(row)) for row in table.to_pylist()]


def _title(row: Mapping[str, Any]) -> str:
    words = filter(None, [row["sample_id"], *row["captions"], row["label"]])
    return " · ".join(words)[:_LONGEST_TITLE]


def _data_uri(jpeg: bytes, side: int) -> str:
    pixels = decode_stored(jpeg)
    small = encode_jpeg(resize(pixels, fitted(pixels.shape[1], pixels.shape[0], side)), _QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(small).decode()}"
