"""The examination of a trained or given image tokenizer: numbers, and images to look at."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from orchestration import Dataset
from orchestration.storage.store import Store
from pipelines.readers.rows import KeptImages, cut_views
from pipelines.tokens.codebook_figures import draw_code_maps, draw_code_sheet
from tokenizer.code_usage import CodeCounts
from tokenizer.vqkd import VQKD, to_input

REPORT_FILE: Final = "report.json"
MAPS_FILE: Final = "code_maps.png"
SHEET_FILE: Final = "code_sheet.png"
_BATCH: Final = 64
_VIEW: Final = -1
"Number of the view that is examined; training uses those from 0."
_SHOWN: Final = 24
_SHEET_IMAGES: Final = 1024
_SHEET_CODES: Final = 32
_SHEET_WIDTH: Final = 24


@dataclass(frozen=True)
class Examination:
    """What is examined, and on which images."""

    kept: Sequence[Dataset]
    images: Sequence[Dataset]
    sources: Sequence[str]
    "Of each of ``images``."
    num_images: int
    min_scale: float
    seed: int


@torch.no_grad()
def examine(
    folder: Store, tokenizer: VQKD, teacher: nn.Module | None, what: Examination
) -> dict[str, float]:
    """Write report and images to ``folder``; return the report's numbers.

    Args:
        folder: of the stage.
        tokenizer: on the device to compute on.
        teacher: that it was trained with, on the same device; None leaves the cosine out.
        what: the images.
    """
    device = next(tokenizer.parameters()).device
    use = CodeCounts(tokenizer.config.num_codes, len(what.images))
    cosines: list[float] = []
    seen: list[tuple[NDArray[np.uint8], NDArray[np.int64]]] = []
    for crops, sources in _crops(what, tokenizer.config.image_size):
        images = to_input(crops).to(device)
        if teacher is None:
            codes = tokenizer.encode(images)
        else:
            distilled = tokenizer(images, teacher(images), torch.Generator())
            codes = distilled.codes
            cosines += [float(distilled.cosine)] * len(images)
        use.add(codes, torch.from_numpy(sources))
        if sum(len(c) for c, _ in seen) < _SHEET_IMAGES:
            seen.append((crops, codes.cpu().numpy()))
    numbers = use.numbers(list(what.sources))
    if cosines:
        numbers["teacher_cosine"] = float(np.mean(cosines))
    report: dict[str, Any] = {**numbers, "histogram": use.histogram()}
    folder.write_bytes(REPORT_FILE, json.dumps(report, indent=1).encode())
    _draw(folder, *(np.concatenate(part) for part in zip(*seen, strict=True)))
    return numbers


def _crops(what: Examination, size: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Yield one view of images spread over the corpus, and their sources."""
    images = KeptImages(what.kept, what.images, ["sample_id", "jpeg"])
    number = min(what.num_images, len(images))
    places = np.linspace(0, len(images) - 1, number).astype(np.int64)
    for chunk in np.array_split(places, -(-number // _BATCH)):
        yield (
            cut_views(images, chunk, what.min_scale, what.seed, _VIEW, size),
            images.dataset[chunk],
        )


def _draw(folder: Store, crops: NDArray[np.uint8], codes: NDArray[np.int64]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        maps, sheet = Path(temporary) / MAPS_FILE, Path(temporary) / SHEET_FILE
        shown = np.linspace(0, len(crops) - 1, min(_SHOWN, len(crops))).astype(int)
        draw_code_maps(crops[shown], codes[shown], maps)
        draw_code_sheet(crops, codes, sheet, num_codes=_SHEET_CODES, width=_SHEET_WIDTH)
        folder.write_file(MAPS_FILE, maps)
        folder.write_file(SHEET_FILE, sheet)
