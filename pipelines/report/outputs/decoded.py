"""Rows of any table in words: token ids as texts, views as boxes, images by their size."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np

from dataprep.image_errors import ImageError
from dataprep.jpeg_segments import read_segments
from orchestration import Dataset
from orchestration.manifest import Manifest, read_manifest
from orchestration.reporting.results import human_bytes
from orchestration.storage.store import Store
from pipelines.report.predicted import clipped
from pipelines.tokens.given_codes import STAGES
from pipelines.tokens.image_tokens import VIEW_NUMBERS
from pipelines.tokens.text_tokenizer import MODEL_FILE
from tokenizer.text import BOS, TextTokenizer

_JPEG: Final = b"\xff\xd8"
_MOST_ITEMS: Final = 8
"Items of a list that are written out."


def tokenizer_of(workdir: Store, manifest: Manifest) -> TextTokenizer | None:
    """Return the text tokenizer that made the ids of an output, or None if it made none.

    Given codes are written into tables whose ids they keep, so theirs are those of their input.

    Raises:
        StoreError: the tokenizer, or an output on the way to it, has been removed.
        ManifestError: it is damaged.
    """
    for parents in manifest.parents.values():
        for parent in parents:
            folder = workdir.sub(f"{parent.stage}/{parent.fingerprint}")
            if parent.stage == "text_tokenizer":
                return TextTokenizer.load(Dataset.open(folder).fetch(MODEL_FILE))
            if manifest.stage in STAGES.values():
                return tokenizer_of(workdir, read_manifest(folder))
    return None


def in_words(row: Mapping[str, Any], text: TextTokenizer | None) -> Iterator[tuple[str, str]]:
    """Yield each column of a row with its value in words.

    Args:
        row: a row of a table.
        text: decodes its token ids; None leaves them as numbers.
    """
    views = len(row["views"]) // VIEW_NUMBERS if row.get("views") else 0
    for name, value in row.items():
        if name == "ids" and text is not None and value is not None:
            yield name, f"{len(value)} tokens: {' | '.join(documents(value, text))}"
        elif name == "captions" and text is not None and _are_ids(value):
            yield name, " | ".join(clipped(text.decode(ids)) for ids in value)
        elif name == "views" and views:
            boxes = np.array(value).reshape(-1, VIEW_NUMBERS)
            yield name, "; ".join(map(_box, boxes.tolist()))
        elif name == "codes" and views and value is not None:
            each = np.array(value).reshape(views, -1)
            used = ", ".join(str(len(set(codes))) for codes in each.tolist())
            yield name, f"{views} views of {each.shape[1]} codes, {used} different ones"
        else:
            yield name, worded(value)


def documents(ids: Sequence[int], text: TextTokenizer) -> list[str]:
    """Return the texts that lie in packed token ids, a text of each document or part of one."""
    starts = [i for i, index in enumerate(ids) if index == BOS]
    cuts = sorted({0, *starts, len(ids)})
    found = (text.decode(ids[a:b]) for a, b in pairwise(cuts))
    return [clipped(each) for each in found if each]


def worded(value: Any) -> str:
    """Return a value of a table in words."""
    if value is None:
        return "null"
    if isinstance(value, bytes):
        return _bytes(value)
    if isinstance(value, str):
        return clipped(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        shown = ", ".join(worded(item) for item in value[:_MOST_ITEMS])
        return f"[{shown}{', …' if len(value) > _MOST_ITEMS else ''}] ({len(value)})"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {worded(inner)}" for name, inner in value.items())
    return str(value)


def _bytes(value: bytes) -> str:
    if value.startswith(_JPEG):
        try:
            segments = read_segments(value)
        except ImageError as error:
            return f"damaged JPEG, {human_bytes(len(value))}: {error.detail}"
        return f"JPEG {segments.width} x {segments.height}, {human_bytes(len(value))}"
    return f"binary, {human_bytes(len(value))}"


def _box(numbers: Sequence[int]) -> str:
    x, y, width, height, is_mirrored = numbers
    return f"{width} x {height} at ({x}, {y}){', mirrored' if is_mirrored else ''}"


def _are_ids(value: Any) -> bool:
    return bool(value) and isinstance(value[0], list)
