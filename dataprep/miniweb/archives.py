"""Archives of images: ImageNet-21K and WebDataset.

imagenet21k.tar     a tar of one tar per synset, images named <wnid>_<n>.JPEG
words.txt           wnid TAB names (WordNet's list of ImageNet synsets)
webdataset/         00000.tar, …: 000000012.jpg, .json and .txt of each sample, as img2dataset
                    writes them; the last of several tars is truncated
"""

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Final

from dataprep.miniweb.drawn_images import DrawnImage, ImageRenderer, image_size, numbered_rng
from dataprep.miniweb.grammar import COLORS, SHAPES, caption, class_scene, random_scene
from dataprep.miniweb.truth import Row

IMAGENET: Final = "imagenet21k.tar"
WEBDATASET: Final = "webdataset"
_LONGEST_SIDE: Final = 600
_LONGEST_SAMPLE_SIDE: Final = 400
_SAMPLES_OF_A_TAR: Final = 50
_FAULTS: Final = ("undecodable", "missing_file", "empty_caption")


def write_imagenet(
    folder: Path, num_classes: int, num_images: int, seed: int, renderer: ImageRenderer
) -> list[Row]:
    """Write ``imagenet21k.tar`` with ``num_images`` of each class, and ``words.txt``."""
    classes = [(color, shape) for shape in SHAPES for color in COLORS][:num_classes]
    rows, words, images = list[Row](), [], []
    for c, (color, shape) in enumerate(classes):
        wnid = f"n{c + 1:08d}"
        words.append(f"{wnid}\t{color} {shape}\n")
        for i in range(num_images):
            rng = numbered_rng(seed, 3, c, i)
            scene = class_scene(rng, color, shape)
            width, height = image_size(rng, _LONGEST_SIDE)
            images.append(DrawnImage(scene, width, height, (seed, 3, c, i)))
            outcome = "undecodable" if i % 29 == 17 else "ok"
            name = f"imagenet21k/{wnid}_{i}"
            rows.append(Row("imagenet21k", name, outcome, f"{color} {shape}", width, height))
    drawn = zip(rows, renderer.render(images), strict=True)
    with tarfile.open(folder / IMAGENET, "w") as outer:
        for c in range(len(classes)):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as inner:
                for _ in range(num_images):
                    row, data = next(drawn)
                    member = f"{row.sample_id.removeprefix('imagenet21k/')}.JPEG"
                    add(inner, member, data if row.outcome == "ok" else data[: len(data) // 3])
            add(outer, f"n{c + 1:08d}.tar", buffer.getvalue())
    (folder / "words.txt").write_text("".join(words))
    return rows


def write_webdataset(folder: Path, number: int, seed: int, renderer: ImageRenderer) -> list[Row]:
    """Write ``webdataset/`` with ``number`` samples."""
    (folder / WEBDATASET).mkdir()
    rows, images = list[Row](), []
    for i in range(number):
        rng = numbered_rng(seed, 11, i)
        scene = random_scene(rng)
        width, height = image_size(rng, _LONGEST_SAMPLE_SIDE)
        images.append(DrawnImage(scene, width, height, (seed, 11, i)))
        outcome = _FAULTS[(i // 11) % len(_FAULTS)] if i % 11 == 6 else "ok"
        name = f"webdataset/{i // _SAMPLES_OF_A_TAR:05d}/{i:09d}"
        rows.append(Row("webdataset", name, outcome, caption(scene, rng), width, height))
    drawn = list(zip(rows, renderer.render(images), strict=True))
    for first in range(0, number, _SAMPLES_OF_A_TAR):
        data = _sample_tar(drawn[first : first + _SAMPLES_OF_A_TAR])
        if first > 0 and first + _SAMPLES_OF_A_TAR >= number:
            data, rows[-1] = _truncated(data, rows[-1])
        path = folder / WEBDATASET / f"{first // _SAMPLES_OF_A_TAR:05d}.tar"
        path.write_bytes(data)
    return rows


def _sample_tar(samples: list[tuple[Row, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for row, image in samples:
            stem = row.sample_id.rsplit("/", 1)[1]
            text = None if row.outcome == "empty_caption" else row.caption
            if row.outcome != "missing_file":
                is_whole = row.outcome != "undecodable"
                add(archive, f"{stem}.jpg", image if is_whole else image[: len(image) // 3])
            content = {"caption": text, "key": stem, "status": "success"}
            add(archive, f"{stem}.json", json.dumps(content).encode())
            add(archive, f"{stem}.txt", (text or "").encode())
    return buffer.getvalue()


def _truncated(data: bytes, last: Row) -> tuple[bytes, Row]:
    """Truncate a tar after the header of its last sample's caption file."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        end = archive.getmembers()[-2].offset_data  # the JSON; a text follows it
    # A reader names damage by the last sample's name and a "+".
    return data[:end], replace(last, sample_id=f"{last.sample_id}+", outcome="damaged_tar")


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """Append a file without a date or an owner."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))
