"""Curation: each rule drops the images it is meant for, and one of several copies is kept."""

from collections.abc import Sequence

import cv2
import numpy as np
import pyarrow as pa
import pytest

from dataprep.images import ImageRules, encode_jpeg, store_image
from dataprep.schemas import IMAGES
from orchestration import Dataset, Stage
from orchestration.params import StageParams
from orchestration.storage.store import Store
from pipelines.curate.curate import Params, stage
from pipelines.ingest.store_images import image_row
from tests.committing import commit_tables
from tests.in_process import run_in_process

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
    tmp_path,
    pairs: Sequence = (),
    images: Sequence = (),
    evaluation: Sequence = (),
    numbers: dict | None = None,
    captions: dict | None = None,
    held_out: Sequence[str] = (),
    caption_rejects: dict | None = None,
    **params,
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Curate images; return what is kept, and reasons by name.

    An image is given as (bytes, captions) or (bytes, captions, further columns of its list).
    ``numbers`` receives the numbers of the manifest, ``captions`` those of each kept image,
    ``caption_rejects`` the reasons by caption. ``held_out`` names sources held out as a whole.
    """
    inputs = {}
    for kind, rows in (("e", evaluation), ("p", pairs), ("i", images)):
        table = [
            image_row(
                f"{kind}/{i}",
                kind,
                store_image(data, RULES),
                list(texts),
                index_row=more[0] if more else {},
            )
            for i, (data, texts, *more) in enumerate(rows)
        ]
        folder = Store(tmp_path / kind)
        tables = [pa.Table.from_pylist(table, IMAGES)]
        commit_tables(folder, tables, row_group_rows=4)
        inputs[kind] = folder
    sources = {kind: Stage(kind, lambda _: None, StageParams()) for kind in inputs}
    declared = stage(
        Params(**params),
        evaluation_sets=[sources["e"]],
        pairs=[sources["p"]],
        images=[sources["i"]],
        held_out=[sources[kind] for kind in held_out],
    )
    folder = Store(tmp_path / "curate")
    run_in_process(declared, folder, inputs)
    output = Dataset.open(folder, "rejects")
    kept = {name: output.table(name).read().to_pylist() for name in ("pairs", "images")}
    rejects = {row["sample_id"]: row["reason"] for row in output.read().to_pylist()}
    if caption_rejects is not None:
        lost = output.table("caption_rejects").read().to_pylist()
        caption_rejects |= {row["detail"]: row["reason"] for row in lost}
    if numbers is not None:
        numbers |= output.manifest.numbers
    for number, name in enumerate(kept):
        if captions is not None:
            captions |= {row["sample_id"]: row["captions"] for row in kept[name]}
        for row in kept[name]:
            assert (row["dataset"], row["row"]) == (number, int(row["sample_id"].split("/")[1]))
    names = {name: [row["sample_id"] for row in rows] for name, rows in kept.items()}
    assert output.manifest.num_rows_in == len(rejects) + sum(map(len, names.values()))
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


def icons(number: int, side: int, canvas: int) -> list[bytes]:
    """Different symmetric icons of one color each, in the middle of a white canvas."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(number):
        half = rng.random((7, 4)) < 0.5
        cells = np.concatenate([half, half[:, 2::-1]], axis=1).astype(np.uint8)
        icon = cv2.resize(cells, (side, side), interpolation=cv2.INTER_NEAREST)
        pixels = np.full((canvas, canvas, 3), 255, np.uint8)
        start = (canvas - side) // 2
        pixels[start : start + side, start : start + side][icon > 0] = rng.integers(0, 200, 3)
        images.append(encode_jpeg(pixels, 95))
    return images


@pytest.mark.parametrize(("side", "canvas"), [(16, 128), (24, 256), (32, 256), (48, 256), (60, 64)])
def test_different_small_icons_on_white_are_kept(tmp_path, side, canvas):
    images = [(data, ()) for data in icons(60, side, canvas)]
    numbers: dict[str, float] = {}
    kept, _ = run(tmp_path, images=images, numbers=numbers)
    assert len(kept["images"]) >= 54
    trusting, _ = run(tmp_path / "trusting", images=images, max_detail_difference=1000)
    assert numbers["images_kept_by_detail"] >= (canvas > 100) * 20
    assert len(trusting["images"]) <= len(kept["images"])


def test_copies_of_an_image_without_structure_are_dropped(tmp_path):
    (icon,) = icons(1, 24, 256)
    white = encode_jpeg(np.full((200, 200, 3), 255, np.uint8), 95)
    grayer = encode_jpeg(np.full((200, 200, 3), 130, np.uint8), 95)
    images = [icon, white, grayer, icon + b"\0", white + b"\0", grayer + b"\0"]
    _, rejects = run(tmp_path, images=[(data, ()) for data in images])
    assert rejects == dict.fromkeys(("i/3", "i/4", "i/5"), "near_duplicate")


def test_captions_of_copies_are_merged_into_the_image_that_is_kept(tmp_path):
    copy = COPIES["re-encoded"](scene(1))
    pairs = [
        (jpeg(1), ["a dog", "  ", "one two three four"]),
        (jpeg(1), ["A dog.", "a brown dog"]),
        (copy, ["the dog runs"]),
        (copy, ["a dog runs"]),
        (jpeg(2), ["a cat"]),
    ]
    merged: dict[str, list[str]] = {}
    rules = {"max_caption_words": 3}
    run(tmp_path / "all", pairs, [(jpeg(3), ())], captions=merged, **rules)
    own = ["a dog"]
    assert merged == {
        "p/0": [*own, "a brown dog", "the dog runs", "a dog runs"],
        "p/4": ["a cat"],
        "i/0": [],
    }
    run(tmp_path / "two", pairs, captions=merged, max_merged_captions=2, **rules)
    assert merged["p/0"] == [*own, "a brown dog", "the dog runs"]
    run(tmp_path / "off", pairs, captions=merged, merge_near_duplicate_captions=False, **rules)
    assert merged["p/0"] == [*own, "a brown dog"]


def test_captions_are_stored_without_a_limit_on_their_total_length(tmp_path):
    run(tmp_path, [(jpeg(1), GOOD), (jpeg(1), GOOD)])
    schema = Dataset.open(Store(tmp_path / "curate"), "pairs").read().schema
    assert schema.field("captions").type == pa.list_(pa.large_string())


@pytest.mark.parametrize("url", ["a.jpg", "http://a.example/a.jpg"])
def test_a_list_with_a_row_for_each_caption_gives_one_image_with_all_captions(tmp_path, url):
    rows = [(jpeg(1), [f"caption number {i}"], {"url": url}) for i in range(5)]
    captions: dict = {}
    kept, rejects = run(tmp_path, pairs=rows, captions=captions)
    assert kept["pairs"] == ["p/0"] and set(rejects.values()) == {"duplicate"}
    assert captions["p/0"] == [f"caption number {i}" for i in range(5)]


def test_an_image_under_several_addresses_and_captions_is_a_placeholder(tmp_path):
    rows = [(jpeg(1), [f"caption {i}"], {"url": f"http://a.example/{i}"}) for i in range(3)]
    kept, rejects = run(tmp_path, pairs=rows)
    assert kept["pairs"] == [] and set(rejects.values()) == {"placeholder"}
    twice = [(jpeg(1), [f"caption {i}"], {"url": f"http://a.example/{i % 2}"}) for i in range(6)]
    kept, _ = run(tmp_path / "twice", pairs=twice)
    assert kept["pairs"] == ["p/0"]  # two addresses are fewer than three


ON_ITS_SIDE = [
    ({}, {}),
    ({"held_out": False}, {}),
    ({}, {"held_out": False}),
    ({"held_out": True}, {"held_out": True}),
    ({"held_out": True}, {"held_out": False}),
    ({"held_out": True}, {}),
    ({"group": "a"}, {"group": "a"}),
    ({"group": "a"}, {}),
    ({"held_out": True, "group": "a"}, {"group": "b"}),
]
"Columns of the image that is kept, and of a copy whose caption it receives."
ON_ANOTHER_SIDE = [
    ({}, {"held_out": True}),
    ({"held_out": False}, {"held_out": True}),
    ({"group": "a"}, {"held_out": True, "group": "a"}),
    ({"group": "a"}, {"group": "b"}),
    ({}, {"group": "b"}),
    ({"held_out": False, "group": "a"}, {"group": "b"}),
]


@pytest.mark.parametrize("quality", [90, 60], ids=["equal", "near"])
@pytest.mark.parametrize(
    ("kept", "copy", "moves"),
    [*((*case, True) for case in ON_ITS_SIDE), *((*case, False) for case in ON_ANOTHER_SIDE)],
)
def test_a_held_out_caption_moves_to_no_image_that_may_be_trained_on(
    tmp_path, quality, kept, copy, moves
):
    captions, lost = {}, {}
    pairs = [(jpeg(1), ["own caption"], kept), (jpeg(1, quality), ["that of the copy"], copy)]
    run(tmp_path, pairs=pairs, captions=captions, caption_rejects=lost)
    assert captions["p/0"] == ["own caption", *(["that of the copy"] if moves else [])]
    assert lost == ({} if moves else {"that of the copy": "caption_held_out"})


def test_captions_of_a_source_that_is_held_out_stay_there(tmp_path):
    pairs = [(jpeg(1), ["own caption"]), (jpeg(1), ["that of the copy"])]
    captions: dict = {}
    run(tmp_path, pairs=pairs, captions=captions, held_out=["p"])
    assert captions["p/0"] == ["own caption", "that of the copy"]
