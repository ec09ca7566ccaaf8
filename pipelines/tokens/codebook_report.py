"""Report on a trained or given image tokenizer: codebook usage, perplexity, cosine, figures."""

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
from pipelines.readers.kept_images import KeptImages, cut_views
from pipelines.tokens.codebook_figures import draw_code_maps, draw_code_patches
from tokenizer.code_usage import CodeCounts
from tokenizer.vqkd import VQKD, to_input

REPORT_FILE: Final = "report.json"
MAPS_FILE: Final = "code_maps.png"
PATCHES_FILE: Final = "code_patches.png"
_BATCH_SIZE: Final = 64
_VIEW: Final = -1
"Number of the view that the report measures; training uses views from 0."
_NUM_MAPS: Final = 24
_NUM_PATCH_IMAGES: Final = 1024
_NUM_PATCH_CODES: Final = 32
_PATCHES_PER_CODE: Final = 24


@dataclass(frozen=True)
class ReportImages:
    """The images that a report measures."""

    kept: Sequence[Dataset]
    "Tables of curation."
    images: Sequence[Dataset]
    "Images datasets that curation read."
    sources: Sequence[str]
    "Name of the source of each of ``images``."
    num_images: int
    "Largest number of images, spread evenly over the corpus."
    min_crop_scale: float
    "Smallest fraction of an image's area that a crop covers."
    seed: int
    "Seed of the crops."
    flip: bool
    "Whether half of the crops are mirrored."


@torch.no_grad()
def write_codebook_report(
    folder: Store, tokenizer: VQKD, teacher: nn.Module | None, chosen: ReportImages
) -> dict[str, float]:
    """Write report and figures to ``folder``; return the report's numbers.

    Without images, as for texts alone, there are no numbers and no figures.

    Args:
        folder: folder of the stage.
        tokenizer: on the device to compute on.
        teacher: the teacher that it was trained with, on the same device; None leaves out the
            cosine.
        chosen: the images to measure.
    """
    device = next(tokenizer.parameters()).device
    counts = CodeCounts(tokenizer.config.num_codes, len(chosen.images))
    cosines: list[float] = []
    shown: list[tuple[NDArray[np.uint8], NDArray[np.int64]]] = []
    for crops, sources in _crops(chosen, tokenizer.config.image_size):
        images = to_input(crops).to(device)
        if teacher is None:
            codes = tokenizer.encode(images)
        else:
            distilled = tokenizer(images, teacher(images), torch.Generator())
            codes = distilled.codes
            cosines += [float(distilled.cosine)] * len(images)
        counts.add(codes, torch.from_numpy(sources))
        if sum(len(c) for c, _ in shown) < _NUM_PATCH_IMAGES:
            shown.append((crops, codes.cpu().numpy()))
    if not shown:
        folder.write_bytes(REPORT_FILE, b"{}")
        return {}
    numbers = counts.numbers(list(chosen.sources))
    if cosines:
        numbers["teacher_cosine"] = float(np.mean(cosines))
    report: dict[str, Any] = {**numbers, "histogram": counts.histogram()}
    folder.write_bytes(REPORT_FILE, json.dumps(report, indent=1).encode())
    _draw(folder, *(np.concatenate(part) for part in zip(*shown, strict=True)))
    return numbers


def _crops(
    chosen: ReportImages, size: int
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Yield batches of crops, (B, size, size, 3) RGB, and the source numbers of their images."""
    images = KeptImages(chosen.kept, chosen.images, ["sample_id", "jpeg"])
    total = min(chosen.num_images, len(images))
    spread = np.linspace(0, len(images) - 1, total).astype(np.int64)
    for numbers in np.array_split(spread, -(-total // _BATCH_SIZE)) if total else ():
        crops = cut_views(
            images,
            numbers,
            min_crop_scale=chosen.min_crop_scale,
            seed=chosen.seed,
            view=_VIEW,
            size=size,
            flip=chosen.flip,
        )
        yield crops, images.locations(numbers)[0]


def _draw(folder: Store, crops: NDArray[np.uint8], codes: NDArray[np.int64]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        maps, patches = Path(temporary) / MAPS_FILE, Path(temporary) / PATCHES_FILE
        mapped = np.linspace(0, len(crops) - 1, min(_NUM_MAPS, len(crops))).astype(int)
        draw_code_maps(crops[mapped], codes[mapped], maps)
        draw_code_patches(
            crops, codes, patches, num_codes=_NUM_PATCH_CODES, patches_per_code=_PATCHES_PER_CODE
        )
        folder.write_file(MAPS_FILE, maps)
        folder.write_file(PATCHES_FILE, patches)
