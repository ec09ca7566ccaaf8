"""The miniature web's edge cases: image formats and copies against Pillow, behaviors over HTTP."""

import asyncio
import csv
import io
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dataprep.addresses import AddressRules
from dataprep.fetch import Fetcher, FetchError, FetchRules
from dataprep.host_limiter import HostLimiter, HostRules
from dataprep.images import ImageError, ImageRules, StoredImage, store_image
from dataprep.miniweb.annotated import split_by_use
from dataprep.miniweb.corpora import TRUTH
from dataprep.miniweb.drawn_images import DrawnImage, encoded, numbered_rng
from dataprep.miniweb.edge_cases import edge_cases
from dataprep.miniweb.grammar import random_scene
from dataprep.miniweb.image_formats import COPIES, FORMATS
from dataprep.miniweb.server import serving
from dataprep.miniweb.server_behaviors import EDGE_CASE_DETOURS, EDGE_CASE_MISBEHAVIORS
from tests.dataprep.webs import WHOLE_WEB

RULES = ImageRules(short_side=96, jpeg_quality=95, min_side=32, max_pixels=200_000_000)
TABLE = edge_cases(["cc3m", "coco", "coco_eval"])
PILLOW_FORMATS = {
    "jpeg": ("JPEG", "RGB"),
    "palette": ("PNG", "P"),
    "deep": ("PNG", "RGB"),  # Pillow reads eight of the sixteen bits
    "alpha": ("PNG", "RGBA"),
    "gray": ("JPEG", "L"),
    "cmyk": ("JPEG", "CMYK"),
    "turned": ("JPEG", "RGB"),
    "progressive": ("JPEG", "RGB"),
    "animated": ("GIF", "P"),
    "webp": ("WEBP", "RGB"),
    "bmp": ("BMP", "RGB"),
    "bomb": ("PNG", "1"),
    "big": ("JPEG", "RGB"),
}


@pytest.fixture(scope="module")
def rows(whole_web: Path) -> list[dict]:
    """Truth's rows of the list, each with its URL and the server's file."""
    with (whole_web / "own.csv").open(newline="") as file:
        records = list(csv.reader(file))[1:]
    found = [r for r in pq.read_table(whole_web / TRUTH).to_pylist() if r["source"] == "own"]
    for row, record in zip(found, records, strict=True):
        row["url"] = record[0]
        row["path"] = whole_web / "images" / record[0].rsplit("/", 1)[1]
    return found


def first_of(rows: list[dict], **wanted: str) -> dict:
    case = next(e for e in TABLE if all(getattr(e, k) == v for k, v in wanted.items()))
    return rows[TABLE.index(case)]


def outcome(data: bytes) -> StoredImage | str:
    try:
        return store_image(data, RULES)
    except ImageError as error:
        return error.reason


def test_the_list_holds_every_case():
    assert len(TABLE) <= WHOLE_WEB.num_own
    assert {case.format for case in TABLE} == FORMATS.keys()
    assert edge_cases([])[0] == TABLE[0] and not any(e.origin for e in edge_cases([]))


def test_every_file_is_stored_or_rejected_as_truth_says(rows):
    for case, row in zip(TABLE, rows, strict=False):
        if case.behavior != "ok" or case.outcome in ("malformed_line", "bad_url"):
            continue
        stored = outcome(row["path"].read_bytes())
        if isinstance(stored, str):
            assert stored == row["outcome"], case
        else:
            assert row["outcome"] in ("ok", "empty_caption"), case
            size = stored.original_width, stored.original_height
            assert size == (row["width"], row["height"]), case


@pytest.mark.parametrize("name", PILLOW_FORMATS)
def test_pillow_reads_each_format_as_named(rows, name):
    row = first_of(rows, format=name)
    with Image.open(row["path"]) as image:
        assert (image.format, image.mode) == PILLOW_FORMATS[name]
        size = (row["width"], row["height"])
        assert image.size == (size[::-1] if name == "turned" else size)
        if name == "turned":
            assert image.getexif()[274] == 6
        if name == "progressive":
            assert image.info["progressive"]
        if name == "animated":
            assert image.n_frames == 2
    data = row["path"].read_bytes()
    assert name != "deep" or data[24] == 16  # bits of a sample, in the PNG's header
    assert name != "bomb" or len(data) < 150_000


@pytest.mark.parametrize("name", ["turned", "progressive", "webp", "bmp", "deep", "cmyk"])
def test_each_format_decodes_to_the_upright_scene(whole_web, name):
    """Against the plain JPEG of the same scene, both at the size they are stored in."""
    looks = []
    for each in ("jpeg", name):
        image = DrawnImage(random_scene(numbered_rng(0, 1)), 260, 340, (0, 1), each)
        stored = outcome(encoded(image))
        assert isinstance(stored, StoredImage)
        looks.append(np.frombuffer(stored.colors, np.uint8).astype(int))
    assert np.abs(looks[0] - looks[1]).mean() < 4


@pytest.mark.parametrize("origin", ["cc3m", "coco", "coco_eval"])
def test_copies_show_the_original_that_truth_names(whole_web, rows, origin):
    for name in COPIES:
        row = first_of(rows, format=name, origin=origin)
        source, _, _ = row["copy_of"].partition("/")
        assert (source, row["copy_kind"]) == (origin, name)
        original, copy = original_bytes(whole_web, row["copy_of"]), row["path"].read_bytes()
        assert (original == copy) == (name == "exact")
        first, second = (Image.open(io.BytesIO(data)) for data in (original, copy))
        assert second.size == (row["width"], row["height"])
        scale = second.width / first.width
        assert abs(scale - {"resized": 0.6, "cropped": 0.96}.get(name, 1.0)) < 0.01
        if name == "cropped":
            left, top = (first.width - second.width) // 2, (first.height - second.height) // 2
            first = first.crop((left, top, left + second.width, top + second.height))
        difference = np.asarray(first.resize(second.size), int) - np.asarray(second, int)
        assert np.abs(difference).mean() < 3


def original_bytes(web: Path, name: str) -> bytes:
    """Return the original's bytes read without the pipeline's readers."""
    source, _, number = name.partition("/")
    if source == "cc3m":
        return (web / f"images/cc3m_{int(number) - 1:06d}.jpg").read_bytes()
    images = json.loads((web / "dataset_coco.json").read_text())["images"]
    image = next(image for image in images if image["cocoid"] == int(number))
    assert (image["split"] in ("val", "test")) == (source == "coco_eval")
    with zipfile.ZipFile(web / f"{image['filepath']}.zip") as archive:
        return archive.read(f"{image['filepath']}/{image['filename']}")


def test_coco_images_are_split_by_use():
    images = dict.fromkeys(["coco/1", "coco_eval/2"])
    assert [list(part) for part in split_by_use(images)] == [["coco/1"], ["coco_eval/2"]]


@pytest.fixture(scope="module")
def port(whole_web: Path):
    with serving(whole_web) as port:
        yield port


def fetch(url: str, port: int, attempts: int = 2) -> bytes | str:
    """Return a body, or the reason why there is none."""

    async def run() -> bytes | str:
        rules = FetchRules(
            "tests",
            read_timeout_s=0.5,
            total_timeout_s=2,
            max_attempts=attempts,
            first_wait_s=0.01,
            addresses=AddressRules(False, {"*.test": f"127.0.0.1:{port}"}),
        )
        fetcher = Fetcher(rules, HostLimiter(HostRules(max_requests_per_second=1e6)))
        with ThreadPoolExecutor(1) as threads:
            (body,) = await fetcher.fetch_all([url], bytes, threads)
        await fetcher.close()
        return body.reason if isinstance(body, FetchError) else body

    return asyncio.run(run())


@pytest.mark.parametrize("behavior", EDGE_CASE_MISBEHAVIORS)
def test_each_misbehavior_has_its_reason(rows, port, behavior):
    row = first_of(rows, behavior=behavior)
    # A second attempt would find the host paused, as it asked to be.
    attempts = 1 if behavior == "busy-for-hours" else 2
    assert fetch(row["url"], port, attempts) == row["outcome"] == EDGE_CASE_MISBEHAVIORS[behavior]


@pytest.mark.parametrize("behavior", EDGE_CASE_DETOURS)
def test_an_image_behind_a_detour_is_complete(rows, port, behavior):
    row = first_of(rows, behavior=behavior)
    assert fetch(row["url"], port) == row["path"].read_bytes() and row["outcome"] == "ok"


@pytest.mark.parametrize("name", ["palette", "svg", "empty", "bomb", "animated"])
def test_files_of_every_format_are_served_unchanged(rows, port, name):
    row = first_of(rows, format=name)
    assert fetch(row["url"], port) == row["path"].read_bytes()
