"""The health of both tokenizers: codebook usage and figures, tokens per word of each source."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np

from orchestration.manifest import MANIFEST
from orchestration.storage.store import Store
from pipelines.report.contact_sheets import jpeg_uri
from pipelines.tokens import codebook_report, text_tokenizer

_WIDEST: Final = 1000
"Pixels of a figure's width on the page."
_TALLEST: Final = 700
_QUALITY: Final = 85


@dataclass(frozen=True)
class Codebook:
    """What the report of the image tokenizer says."""

    path: str
    usage: float
    perplexity: float
    num_dead: int
    teacher_cosine: float | None
    sources: Sequence[tuple[str, float, float]]
    "Name, usage and perplexity of each source."
    histogram: Sequence[float]
    "Fraction of all patches in each tenth of the codes, the most used codes first."
    maps: str
    patches: str
    "Data URIs of its figures; empty where one is missing."


@dataclass(frozen=True)
class Vocabulary:
    """What the report of the text tokenizer says."""

    path: str
    num_rows: int
    sources: Sequence[tuple[str, float, float, float]]
    "Name, tokens per word, fraction of unknown tokens, fraction of covered characters."


def codebook(workdir: Store, path: str) -> Codebook | None:
    """Return the health of a committed image tokenizer, or None if it has no report."""
    folder = workdir.sub(path)
    found = _report(folder, codebook_report.REPORT_FILE)
    if found is None or "codebook_usage" not in found:
        return None
    names = [key.split("/", 1)[1] for key in found if key.startswith("codebook_usage/")]
    return Codebook(
        path,
        found["codebook_usage"],
        found["codebook_perplexity"],
        int(found["num_dead_codes"]),
        found.get("teacher_cosine"),
        [
            (name, found[f"codebook_usage/{name}"], found[f"codebook_perplexity/{name}"])
            for name in names
        ],
        found["histogram"],
        _figure(folder, codebook_report.MAPS_FILE),
        _figure(folder, codebook_report.PATCHES_FILE),
    )


def vocabulary(workdir: Store, path: str) -> Vocabulary | None:
    """Return the report of a committed text tokenizer, or None if there is none."""
    found = _report(workdir.sub(path), text_tokenizer.REPORT_FILE)
    if found is None or "num_vocab_rows" not in found:
        return None
    names = [key.split("/", 1)[1] for key in found if key.startswith("tokens_per_word/")]
    kinds = ("tokens_per_word", "unknown_fraction", "character_coverage")
    return Vocabulary(
        path,
        int(found["num_vocab_rows"]),
        [(name, *(found[f"{kind}/{name}"] for kind in kinds)) for name in names],
    )


def _report(folder: Store, name: str) -> Mapping[str, Any] | None:
    if not (folder.exists(MANIFEST) and folder.exists(name)):
        return None
    return folder.read_json(name, {})


def _figure(folder: Store, name: str) -> str:
    """Return a figure as a data URI of bounded size; nothing if it is missing or damaged."""
    if not folder.exists(name):
        return ""
    image = cv2.imdecode(np.frombuffer(folder.read(name), np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        return ""
    height, width = image.shape[:2]
    scale = min(1.0, _WIDEST / width, _TALLEST / height)
    if scale < 1:
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return jpeg_uri(bytes(data))
