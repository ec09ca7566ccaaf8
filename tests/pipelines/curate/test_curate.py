"""Curation: each rule drops the images it is meant for, and one of several copies is kept."""

from collections.abc import Sequence

import cv2
import numpy as np
import pyarrow as pa
import pytest

from dataprep.images import ImageRules, encode_jpeg, store_image
from dataprep.schemas import IMAGES
from orchestration.slices import Slice
from orchestration.storage.store import Store
from pipelines.curate.curate import Params, curate
from pipelines.curate.features import count_words
from pipelines.ingest.store_images import image_row
from tests.committing import commit_tables

RULES = ImageRules(short_side=96, jpeg_quality=95, min_side=8, max_pixels=10**8)


def scene(seed: int, width: int = 240, height: int = 180) -> np.ndarray:
    """An image with detail at several scales, another for each seed."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((height, width, 3), np.float32)
    for cells in (3, 9, 27):
        coarse = rng.normal(0, 150 / cells**0.5, (cells, cells, 3)).astype(np.float32)
        pixels += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(pixels + 128, 0, 255).astype(np.uint8)


def jpeg(seed: int, quality: int = 90, **size: int) -> bytes:
    return encode_jpeg(scene(seed, **size), quality)


COPIES = {
    "re-encoded": lambda pixels: encode_jpeg(pixels, 40),
    "resized": lambda pixels: encode_jpeg(cv2.resize(pixels, None, fx=0.6, fy=0.6), 85),
    "cropped": lambda pixels: encode_jpeg(np.ascontiguousarray(pixels[2:-2, 2:-2]), 90),
}


def run(
    tmp_path, pairs: Sequence = (), images: Sequence = (), evaluation: Sequence = (), **params
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Curate images given as (bytes, captions); return what is kept, and reasons by name."""
    datasets = []
    for kind, rows in (("e", evaluation), ("p", pairs), ("i", images)):
        table = [
            image_row(f"{kind}/{i}", kind, store_image(data, RULES), list(captions))
            for i, (data, captions) in enumerate(rows)
        ]
        folder = Store(tmp_path / kind)
        tables = [pa.Table.from_pylist(table, IMAGES)]
        datasets.append(commit_tables(folder, tables, row_group_rows=4))
    slice_ = Slice("000000", {"evaluation_sets": 1, "pairs": 1, "images": 1})
    output = curate(Params(**params), datasets, slice_)
    kept = {name: output.tables[name].to_pylist() for name in ("pairs", "images")}
    rejects = {row["sample_id"]: row["reason"] for row in output.tables["rejects"].to_pylist()}
    for number, name in enumerate(kept):
        for row in kept[name]:
            assert (row["dataset"], row["row"]) == (number, int(row["sample_id"].split("/")[1]))
    names = {name: [row["sample_id"] for row in rows] for name, rows in kept.items()}
    assert output.num_rows_in == len(rejects) + sum(map(len, names.values()))
    return names, rejects


GOOD = ("two words",)


def test_the_first_of_equal_originals_that_passes_the_rules_is_kept(tmp_path):
    pairs = [(jpeg(1), ["one"]), (jpeg(1), GOOD), (jpeg(1), GOOD), (jpeg(2), GOOD)]
    kept, rejects = run(tmp_path, pairs, [(jpeg(2), ()), (jpeg(3), ())], min_caption_words=2)
    assert kept == {"pairs": ["p/1", "p/3"], "images": ["i/1"]}
    assert rejects == {"p/0": "caption_length", "p/2": "duplicate", "i/0": "duplicate"}


def test_one_image_under_many_captions_is_a_placeholder(tmp_path):
    pairs = [(jpeg(1), [f"caption {i}"]) for i in range(3)] + [(jpeg(2), ["same text"])] * 3
    pairs.append((jpeg(4), [f"one of five {i}" for i in range(5)]))  # as in COCO
    kept, rejects = run(tmp_path, pairs, [(jpeg(3), ())])
    assert {rejects[f"p/{i}"] for i in range(3)} == {"placeholder"}
    assert kept["pairs"] == ["p/3", "p/6"]


@pytest.mark.parametrize(
    ("captions", "fits"),
    [
        (["one"], False),
        (["  one  "], False),
        (["", "two words"], True),
        (["one two three four"], False),
        ([], False),
    ],
)
def test_a_pair_needs_a_caption_of_the_right_length(tmp_path, captions, fits):
    bounds = {"min_caption_words": 2, "max_caption_words": 3}
    _, rejects = run(tmp_path, [(jpeg(1), captions)], [(jpeg(2), ())], **bounds)
    assert rejects == ({} if fits else {"p/0": "caption_length"})


@pytest.mark.parametrize(
    ("caption", "num_words"),
    [
        ("a dog", 2),
        ("ghost", 1),
        ("", 0),
        ("一只棕色的狗在草地上奔跑", 6),
        ("一只 iPhone。", 2),
        ("ネコが座っている", 4),
        ("สุนัขวิ่งบนหญ้า", 4),
        ("개가 풀밭을 달린다", 3),
        ("собака бежит", 2),
    ],
)
def test_words_are_counted_by_script(caption, num_words):
    assert count_words(pa.chunked_array([[caption]])).tolist() == [num_words]


@pytest.mark.parametrize("caption", ["一只棕色的狗在草地上奔跑", "ghost", "犬", "สุนัข"])
def test_a_short_caption_is_kept_unless_the_recipe_drops_it(tmp_path, caption):
    pairs, images = [(jpeg(1), [caption])], [(jpeg(2), ())]
    assert run(tmp_path / "default", pairs, images)[1] == {}
    strict = {"p/0": "caption_length"}
    assert run(tmp_path / "strict", pairs, images, min_caption_words=9)[1] == strict


def test_a_long_caption_without_spaces_is_as_long_as_its_characters_say(tmp_path):
    pairs = [(jpeg(1), ["狗在草地上" * 200]), (jpeg(3), ["狗在草地上" * 20])]
    assert run(tmp_path, pairs, [(jpeg(2), ())])[1] == {"p/0": "caption_length"}


def test_small_originals_and_extreme_aspect_ratios_are_dropped(tmp_path):
    images = [
        (jpeg(1, width=800, height=80), ()),
        (jpeg(2, width=90, height=60), ()),
        (jpeg(3), ()),
    ]
    rules = {"max_aspect_ratio": 5, "min_original_side": 64}
    assert run(tmp_path, images=images, **rules)[1] == {"i/0": "aspect", "i/1": "small_original"}


@pytest.mark.parametrize("how", COPIES)
def test_near_duplicates_are_found_across_sources(tmp_path, how):
    number = 24
    pairs = [(jpeg(seed), GOOD) for seed in range(number)]
    copies = [(COPIES[how](scene(seed)), ()) for seed in range(number)]
    others = [(jpeg(seed), ()) for seed in range(100, 100 + number)]
    kept, rejects = run(tmp_path, pairs, copies + others)
    assert len(kept["pairs"]) == number  # merely similar images are kept
    assert set(kept["images"]) >= {f"i/{number + i}" for i in range(number)}
    assert set(rejects.values()) == {"near_duplicate"}
    assert len(rejects) >= (0.7 if how == "cropped" else 1) * number
    assert run(tmp_path / "off", pairs, copies, max_hash_distance=None)[1] == {}


def test_copies_of_evaluation_images_are_dropped(tmp_path):
    evaluation = [(jpeg(seed), ()) for seed in range(4)]
    pairs = [(jpeg(0), GOOD), (COPIES["resized"](scene(1)), GOOD), (jpeg(9), GOOD)]
    images = [(COPIES["re-encoded"](scene(2)), ()), (jpeg(3), ()), (jpeg(8), ())]
    kept, rejects = run(tmp_path, pairs, images, evaluation)
    assert kept == {"pairs": ["p/2"], "images": ["i/2"]}
    assert set(rejects.values()) == {"evaluation_image"} and len(rejects) == 4
