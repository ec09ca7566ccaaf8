"""Rows of a table with their images on one page: stored images, crops of views, maps of codes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np

from dataprep.image_errors import ImageError
from dataprep.images import Pixels, decode_stored, encode_jpeg
from dataprep.views import View, cut
from pipelines.report.contact_sheets import data_uri, jpeg_uri
from pipelines.report.outputs.decoded import in_words
from pipelines.report.page import render
from pipelines.tokens.codebook_figures import color_map
from pipelines.tokens.image_tokens import VIEW_NUMBERS
from tokenizer.text import TextTokenizer

_SIDE: Final = 112
"Pixels of an image's longer side, and of a crop's side."
_QUALITY: Final = 90
_JPEG: Final = b"\xff\xd8"


@dataclass(frozen=True)
class ShownRow:
    """A row on the page; words are untrusted text."""

    number: int
    images: Sequence[tuple[str, str]]
    "Title and data URI of each."
    words: Sequence[tuple[str, str]]


def sheet_page(
    title: str, rows: Mapping[int, Mapping[str, Any]], text: TextTokenizer | None
) -> str:
    """Return a page of rows.

    Args:
        title: names the output and its table.
        rows: by row number.
        text: decodes token ids.
    """
    shown = [
        ShownRow(number, images_of(row), list(in_words(row, text))) for number, row in rows.items()
    ]
    return render("output_sheet.html", title=title, rows=shown)


def images_of(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the images in a row: what its columns hold, and the crop of each view with codes."""
    found = []
    for name, value in row.items():
        if isinstance(value, bytes) and value.startswith(_JPEG):
            found.append((name, _stored(value)))
    if row.get("views") and row.get("jpeg"):
        found += _views(row)
    return [(title, uri) for title, uri in found if uri]


def _stored(jpeg: bytes) -> str:
    try:
        return data_uri(jpeg, "image", _SIDE)
    except ImageError:
        return ""  # the words beside it say that it is damaged


def _views(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    views = np.array(row["views"]).reshape(-1, VIEW_NUMBERS).tolist()
    codes = None if row.get("codes") is None else np.array(row["codes"]).reshape(len(views), -1)
    try:
        pixels = decode_stored(row["jpeg"], str(row.get("sample_id", "image")))
    except ImageError:
        return []
    found = []
    for i, (x, y, width, height, is_mirrored) in enumerate(views):
        crop = np.empty((_SIDE, _SIDE, 3), np.uint8)
        cut(pixels, View(x, y, width, height, bool(is_mirrored)), _SIDE, crop)
        found.append((f"view {i}", _uri(crop)))
        if codes is not None:
            drawn = cv2.resize(color_map(codes[i]), (_SIDE, _SIDE), interpolation=cv2.INTER_NEAREST)
            found.append((f"its {codes.shape[1]} codes", _uri(drawn)))
    return found


def _uri(pixels: Pixels) -> str:
    return jpeg_uri(encode_jpeg(pixels, _QUALITY))
