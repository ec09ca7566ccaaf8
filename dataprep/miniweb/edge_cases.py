"""``own.csv``: a list with the header ``url,caption`` that holds every edge case.

Its rows cycle through one table of cases: every image format, the behaviors of
``server_behaviors``' two tables for edge cases, faults of the list itself, and copies of other
sources' images. Each cycle has other images.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Final

from dataprep.miniweb.drawn_images import DrawnImage, ImageRenderer, image_size, numbered_rng
from dataprep.miniweb.grammar import caption, random_scene
from dataprep.miniweb.image_formats import BIG, BOMB_SIDE, COPIES, FORMATS, SUFFIXES, copied_size
from dataprep.miniweb.server_behaviors import EDGE_CASE_DETOURS, EDGE_CASE_MISBEHAVIORS, url_of
from dataprep.miniweb.truth import Row

OWN_LIST: Final = "own.csv"
_SOURCE: Final = "own"
_LONGEST_SIDE: Final = 640
_REJECTED_FORMATS: Final = {
    "bomb": "too_many_pixels",
    "svg": "unsupported_format",
    "empty": "not_an_image",
}
_FAULTS: Final = ("malformed_line", "empty_caption", "bad_url")


@dataclass(frozen=True)
class EdgeCase:
    """The case that one row of the list shows."""

    format: str = "jpeg"
    "A key of ``image_formats.FORMATS``."
    behavior: str = "ok"
    "Behavior of the server (see ``server_behaviors``)."
    outcome: str = "ok"
    "Expected outcome: ``ok`` or the reason of a reject."
    origin: str | None = None
    "Source whose images are copied; None for an image of its own."


def edge_cases(origins: Sequence[str]) -> list[EdgeCase]:
    """Return the table of cases, with copies of the images of each of ``origins``."""
    formats = [name for name in FORMATS if name not in COPIES]
    return [
        *(EdgeCase(name, outcome=_REJECTED_FORMATS.get(name, "ok")) for name in formats),
        *(EdgeCase(name, origin=origin) for origin in origins for name in COPIES),
        *(EdgeCase(behavior=b, outcome=outcome) for b, outcome in EDGE_CASE_MISBEHAVIORS.items()),
        *(EdgeCase(behavior=behavior) for behavior in EDGE_CASE_DETOURS),
        *(EdgeCase(outcome=fault) for fault in _FAULTS),
    ]


def write_own(
    folder: Path,
    number: int,
    seed: int,
    renderer: ImageRenderer,
    originals: Mapping[str, Mapping[str, DrawnImage]],
) -> list[Row]:
    """Write the list and its images.

    Args:
        folder: folder of the web.
        number: number of rows of the list.
        seed: seed of the web.
        renderer: draws the images.
        originals: images that may be copied, by source and sample_id.
    """
    table = edge_cases([origin for origin, images in originals.items() if images])
    spare = {origin: cycle(images.items()) for origin, images in originals.items()}
    rows, files = [], []
    with (folder / OWN_LIST).open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["url", "caption"])
        for i in range(number):
            case = table[i % len(table)]
            copy_of, original = next(spare[case.origin]) if case.origin else (None, None)
            image, text = _image(case, original, seed, i)
            row = _row(case, image, text, i)
            rows.append(_as_copy(row, copy_of, case.format) if copy_of else row)
            name = f"{_SOURCE}_{i:06d}{SUFFIXES.get(case.format, '.jpg')}"
            writer.writerow(_record(case, name, text, i))
            files.append((folder / "images" / name, image))
    renderer.render_files(files)
    return rows


def _image(
    case: EdgeCase, original: DrawnImage | None, seed: int, number: int
) -> tuple[DrawnImage, str]:
    """Return the image of a row and its caption."""
    rng = numbered_rng(seed, 10, number)
    scene = original.scene if original else random_scene(rng)
    size = BIG if case.format == "big" else image_size(rng, _LONGEST_SIDE)
    text = f'A "simple" drawing: {caption(scene, rng)}'
    if original:
        return replace(original, format=case.format), text
    return DrawnImage(scene, *size, (seed, 10, number), case.format), text


def _row(case: EdgeCase, image: DrawnImage, text: str, number: int) -> Row:
    width: int | None = image.width
    height: int | None = image.height
    if case.format in _REJECTED_FORMATS:
        width = height = BOMB_SIDE if case.format == "bomb" else None
    # The header is line 1.
    name = f"{_SOURCE}/{number + 2:09d}"
    return Row(_SOURCE, name, case.outcome, text, width, height)


def _as_copy(row: Row, original: str, copy: str) -> Row:
    width, height = copied_size(copy, row.width or 0, row.height or 0)
    return replace(row, width=width, height=height, copy_of=original, copy_kind=copy)


def _record(case: EdgeCase, name: str, text: str, number: int) -> list[str]:
    url = url_of(case.behavior, name, number)
    if case.outcome == "malformed_line":
        return [url, text, "a third field"]
    if case.outcome == "bad_url":
        return [url.replace("http:", "ftp:"), text]
    return [url, " " if case.outcome == "empty_caption" else text]
