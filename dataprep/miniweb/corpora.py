"""Writing the miniature web: pictures, list files and archives, and what must become of each row.

    cc3m.tsv            caption TAB url, no header (Conceptual Captions 3M)
    cc12m.tsv           url TAB caption, no header (Conceptual 12M)
    imagenet21k.tar     a tar of one tar per synset, pictures named <wnid>_<n>.JPEG
    words.txt           wnid TAB names (WordNet's list of ImageNet synsets)
    documents.jsonl     one {"text": …} a line
    pictures/           what the server sends
    truth.parquet       source, sample_id, outcome (``ok`` or the reason), placeholder, caption,
                        width, height

The same parameters give the same bytes, so a web that is built again keeps its fingerprints.
"""

import io
import json
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dataprep.miniweb.drawing import draw
from dataprep.miniweb.grammar import (
    COLOURS,
    SHAPES,
    Scene,
    caption,
    class_scene,
    document,
    random_scene,
    tokenised,
)

HOSTS: Final = ("pictures.miniweb.test", "cdn.miniweb.test", "static.miniweb.test")
PLACEHOLDER: Final = "placeholder"
TRUTH: Final = "truth.parquet"
_DONE: Final = "built.json"
_VERSION: Final = 1
"Raise it when the same size draws another web."
_SIDES: Final = (200, 1200)
_JPEG_QUALITY: Final = 88

MISBEHAVIOURS: Final = {
    "missing": "http_404",
    "gone": "http_410",
    "forbidden": "http_403",
    "broken": "http_500",
    "always-busy": "http_429",
    "html": "not_an_image",
    "truncated": "truncated",
    "half-picture": "undecodable",
    "slow": "timeout",
    "reset": "connection",
    "loop": "redirects",
    "optout": "opt_out",
    "dns": "dns",
    "speck": "too_small",
}
"What the server does at a path of that name, and the reason that a fetcher must give."

DELAYS: Final = ("redirect", "busy-once", "flaky")
"What the server does before it sends the picture after all."


@dataclass(frozen=True)
class WebSize:
    """How much to draw."""

    seed: int
    num_cc3m: int
    num_cc12m: int
    num_classes: int
    num_images_per_class: int
    num_documents: int


@dataclass(frozen=True)
class _Picture:
    path: Path
    scene: Scene
    width: int
    height: int
    seed: tuple[int, ...]


def build(folder: Path, size: WebSize) -> None:
    """Write the web into ``folder``; does nothing when it is already there in that size.

    Args:
        folder: replaced if it holds a web of another size.
        size: how much to draw.
    """
    done = folder / _DONE
    record = json.dumps({"version": _VERSION, **asdict(size)})
    if done.exists() and done.read_text() == record:
        return
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "pictures").mkdir(parents=True)
    truth: list[dict[str, object]] = []
    _draw_all(_pairs(folder, size, truth))
    _write_imagenet(folder, size, truth)
    _write_documents(folder, size)
    pq.write_table(pa.Table.from_pylist(truth), folder / TRUTH)
    done.write_text(record)


def _pairs(folder: Path, size: WebSize, truth: list[dict[str, object]]) -> Iterator[_Picture]:
    """Write both pair lists; yield the pictures that the server needs."""
    yield _Picture(
        folder / f"pictures/{PLACEHOLDER}.jpg", random_scene(_rng(size.seed, 9)), 300, 300, (0,)
    )
    names = list(MISBEHAVIOURS)
    for source, number, first in (("cc3m", size.num_cc3m, True), ("cc12m", size.num_cc12m, False)):
        lines = []
        for i in range(number):
            rng = _rng(size.seed, 1 if first else 2, i)
            scene = random_scene(rng)
            width, height = _picture_size(rng, _SIDES[1])
            text = caption(scene, rng)
            behaviour, outcome = "ok", "ok"
            if i % 9 == 4:  # every misbehaviour comes, evenly spread
                behaviour = names[(i // 9) % len(names)]
                outcome = MISBEHAVIOURS[behaviour]
            elif i % 31 == 7:
                behaviour = DELAYS[(i // 31) % len(DELAYS)]
            elif i % 53 == 11:
                behaviour = PLACEHOLDER
            host = HOSTS[i % len(HOSTS)] if behaviour != "dns" else f"gone-{i}.invalid"
            url = f"http://{host}/{behaviour}/{source}_{i:06d}.jpg"
            if behaviour in ("ok", "half-picture", "truncated", *DELAYS):
                path = folder / f"pictures/{source}_{i:06d}.jpg"
                yield _Picture(path, scene, width, height, (size.seed, int(first), i))
            text = tokenised(text) if first else f"{text[0].upper()}{text[1:]}"
            line = f"{text}\t{url}" if first else f"{url}\t{text}"
            if i % 97 == 60:
                line, outcome = line.replace("\t", " "), "malformed_line"
            lines.append(line)
            truth.append(
                {
                    "source": source,
                    "sample_id": f"{source}/{i + 1:09d}",
                    "outcome": outcome,
                    "placeholder": behaviour == PLACEHOLDER and outcome == "ok",
                    "caption": text,
                    "width": width,
                    "height": height,
                }
            )
        (folder / f"{source}.tsv").write_text("\n".join(lines) + "\n")


def _draw_all(pictures: Iterable[_Picture]) -> None:
    with ProcessPoolExecutor() as pool:
        for _ in pool.map(_draw_to_file, pictures, chunksize=16):
            pass


def _draw_to_file(picture: _Picture) -> None:
    picture.path.write_bytes(_draw_jpeg(picture))


def _draw_jpeg(picture: _Picture) -> bytes:
    cv2.setNumThreads(1)
    rng = _rng(*picture.seed, 77)
    pixels = draw(picture.scene, picture.width, picture.height, rng)
    settings = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), settings)
    if not ok:
        raise RuntimeError(f"cannot encode {picture.path}")
    return data.tobytes()


def _write_imagenet(folder: Path, size: WebSize, truth: list[dict[str, object]]) -> None:
    classes = [(colour, shape) for shape in SHAPES for colour in COLOURS][: size.num_classes]
    words = []
    pictures: list[_Picture] = []
    broken: set[str] = set()
    for c, (colour, shape) in enumerate(classes):
        wnid = f"n{c + 1:08d}"
        words.append(f"{wnid}\t{colour} {shape}")
        for i in range(size.num_images_per_class):
            rng = _rng(size.seed, 3, c, i)
            scene = class_scene(rng, colour, shape)
            width, height = _picture_size(rng, _SIDES[1] // 2)
            name = f"{wnid}_{i}.JPEG"
            pictures.append(_Picture(Path(name), scene, width, height, (size.seed, 3, c, i)))
            damaged = i % 29 == 17
            if damaged:
                broken.add(name)
            truth.append(
                {
                    "source": "imagenet21k",
                    "sample_id": f"imagenet21k/{wnid}_{i}",
                    "outcome": "undecodable" if damaged else "ok",
                    "placeholder": False,
                    "caption": f"{colour} {shape}",
                    "width": width,
                    "height": height,
                }
            )
    with ProcessPoolExecutor() as pool, tarfile.open(folder / "imagenet21k.tar", "w") as outer:
        drawn = zip(pictures, pool.map(_draw_jpeg, pictures, chunksize=16), strict=True)
        for c in range(len(classes)):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as inner:
                for _ in range(size.num_images_per_class):
                    picture, data = next(drawn)
                    if picture.path.name in broken:
                        data = data[: len(data) // 3]
                    _add(inner, picture.path.name, data)
            _add(outer, f"n{c + 1:08d}.tar", buffer.getvalue())
    (folder / "words.txt").write_text("\n".join(words) + "\n")


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def _write_documents(folder: Path, size: WebSize) -> None:
    with (folder / "documents.jsonl").open("w") as file:
        for i in range(size.num_documents):
            rng = _rng(size.seed, 4, i)
            line = json.dumps({"text": document(random_scene(rng), rng)})
            file.write((line if i % 211 != 100 else line[:-9]) + "\n")


def _picture_size(rng: np.random.Generator, longest: int) -> tuple[int, int]:
    """Draw a width and a height of at most 1 : 1.4."""
    width = int(rng.integers(_SIDES[0], longest))
    height = int(np.clip(width * rng.uniform(1 / 1.4, 1.4), _SIDES[0], longest))
    return width, height


def _rng(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)
