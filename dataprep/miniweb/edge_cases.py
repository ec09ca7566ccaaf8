"""``own.csv``: url,caption under a header, a zoo of files, of servers and of copies.

Row after row goes through one table: every kind of file, every behavior of ``behaviors``' two
tables for the zoo, faults of the list itself, and copies of other sources' images; then it
begins anew with other images.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from dataprep.miniweb.drawn_images import DrawnImage, Studio, image_size, numbered_rng
from dataprep.miniweb.grammar import caption, random_scene
from dataprep.miniweb.image_formats import BIG, BOMB_SIDE, COPIES, KINDS, SUFFIXES, copied_size
from dataprep.miniweb.server_behaviors import ZOO_DETOURS, ZOO_MISBEHAVIORS, url_of
from dataprep.miniweb.truth import Row

OWN_LIST: Final = "own.csv"
_SOURCE: Final = "own"
_LONGEST_SIDE: Final = 640
_NO_IMAGES: Final = {"bomb": "too_many_pixels", "svg": "not_an_image", "empty": "not_an_image"}
_FAULTS: Final = ("malformed_line", "empty_caption", "bad_url")


@dataclass(frozen=True)
class Exhibit:
    """What one row is about."""

    kind: str = "jpeg"
    behavior: str = "ok"
    outcome: str = "ok"
    origin: str | None = None
    "Source whose images are copied."


def exhibits(origins: Sequence[str]) -> list[Exhibit]:
    """Return the zoo's table; there are copies of the images of each of ``origins``."""
    kinds = [kind for kind in KINDS if kind not in COPIES]
    return [
        *(Exhibit(kind, outcome=_NO_IMAGES.get(kind, "ok")) for kind in kinds),
        *(Exhibit(kind, origin=origin) for origin in origins for kind in COPIES),
        *(Exhibit(behavior=b, outcome=outcome) for b, outcome in ZOO_MISBEHAVIORS.items()),
        *(Exhibit(behavior=behavior) for behavior in ZOO_DETOURS),
        *(Exhibit(outcome=fault) for fault in _FAULTS),
    ]


def write_own(
    folder: Path,
    number: int,
    seed: int,
    studio: Studio,
    originals: Mapping[str, Mapping[str, DrawnImage]],
) -> list[Row]:
    """Write the list and its images.

    Args:
        folder: of the web.
        number: rows of the list.
        seed: of the web.
        studio: draws.
        originals: by source and sample_id, what may be copied.
    """
    table = exhibits([origin for origin, images in originals.items() if images])
    spare = {origin: _over_and_over(images) for origin, images in originals.items()}
    rows, files = [], []
    with (folder / OWN_LIST).open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["url", "caption"])
        for i in range(number):
            exhibit = table[i % len(table)]
            copy_of, original = next(spare[exhibit.origin]) if exhibit.origin else (None, None)
            image, text = _image(exhibit, original, seed, i)
            row = _row(exhibit, image, text, i)
            rows.append(_as_copy(row, copy_of, exhibit.kind) if copy_of else row)
            name = f"{_SOURCE}_{i:06d}{SUFFIXES.get(exhibit.kind, '.jpg')}"
            writer.writerow(_record(exhibit, name, text, i))
            files.append((folder / "images" / name, image))
    studio.draw_files(files)
    return rows


def _image(
    exhibit: Exhibit, original: DrawnImage | None, seed: int, number: int
) -> tuple[DrawnImage, str]:
    """Return what a row shows and how it calls that."""
    rng = numbered_rng(seed, 10, number)
    scene = original.scene if original else random_scene(rng)
    size = BIG if exhibit.kind == "big" else image_size(rng, _LONGEST_SIDE)
    text = f'A "simple" drawing: {caption(scene, rng)}'
    if original:
        return replace(original, kind=exhibit.kind), text
    return DrawnImage(scene, *size, (seed, 10, number), exhibit.kind), text


def _row(exhibit: Exhibit, image: DrawnImage, text: str, number: int) -> Row:
    width: int | None = image.width
    height: int | None = image.height
    if exhibit.kind in _NO_IMAGES:
        width = height = BOMB_SIDE if exhibit.kind == "bomb" else None
    # Numbered as in an editor, behind the header.
    name = f"{_SOURCE}/{number + 2:09d}"
    return Row(_SOURCE, name, exhibit.outcome, text, width, height)


def _as_copy(row: Row, original: str, kind: str) -> Row:
    width, height = copied_size(kind, row.width or 0, row.height or 0)
    return replace(row, width=width, height=height, copy_of=original, copy_kind=kind)


def _record(exhibit: Exhibit, name: str, text: str, number: int) -> list[str]:
    url = url_of(exhibit.behavior, name, number)
    if exhibit.outcome == "malformed_line":
        return [url, text, "a third field"]
    if exhibit.outcome == "bad_url":
        return [url.replace("http:", "ftp:"), text]
    return [url, " " if exhibit.outcome == "empty_caption" else text]


def _over_and_over(images: Mapping[str, DrawnImage]) -> Iterator[tuple[str, DrawnImage]]:
    while images:
        yield from images.items()
