"""Storing images by the rules, and cutting the same views for tokenizer and training."""

import io
import struct
import zlib

import cv2
import imagehash
import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dataprep.image_hashes import look_of, perceptual_hash
from dataprep.images import ImageError, ImageRules, decode_stored, store_image
from dataprep.text import clean_caption, detokenize
from dataprep.views import View, cut, random_cut, random_view

JPEG = b"\xff\xd8\xff"
REASONS = {
    *("not_an_image", "unsupported_format", "undecodable", "unencodable"),
    *("too_small", "too_many_pixels"),
}
RULES = ImageRules(short_side=64, jpeg_quality=95, min_side=16, max_pixels=1_000_000)


def image(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], -1).astype(np.uint8)


def encoded(pixels: np.ndarray, kind: str = "JPEG", **more) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **more)
    return file.getvalue()


@pytest.mark.parametrize("size", [(200, 100), (100, 201), (64, 64), (50, 40)])
def test_the_short_side_is_scaled_down_and_never_up(size):
    stored = store_image(encoded(image(*size)), RULES)
    assert min(stored.width, stored.height) == min(64, *size)
    assert (stored.original_width, stored.original_height) == size
    assert abs(stored.width / stored.height - size[0] / size[1]) < 0.02
    assert decode_stored(stored.jpeg).shape == (stored.height, stored.width, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_common_formats_keep_their_colors(kind):
    red = np.full((80, 80, 3), (200, 30, 30), np.uint8)
    stored = store_image(encoded(red, kind), RULES)
    assert np.abs(decode_stored(stored.jpeg).mean((0, 1)) - (200, 30, 30)).max() < 6


@given(seed=st.integers(0, 10_000), cells=st.integers(1, 32))
@settings(max_examples=200, deadline=None)
def test_the_hash_of_a_small_image_equals_imagehash(seed, cells):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
    small = cv2.resize(coarse, (32, 32), interpolation=cv2.INTER_CUBIC)
    expected = imagehash.phash(Image.fromarray(small))
    found = imagehash.hex_to_hash(perceptual_hash(small))
    assert found - expected <= 1  # a frequency within rounding of the median


def test_the_hash_of_a_stored_image_is_close_to_imagehash():
    stored = store_image(encoded(image(300, 200)), RULES)
    again = imagehash.phash(Image.open(io.BytesIO(encoded(image(300, 200)))))
    assert imagehash.hex_to_hash(stored.phash) - again <= 4


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"<html>no</html>", "not_an_image"),
        (b"", "not_an_image"),
        (encoded(image(90, 90))[:900], "undecodable"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "undecodable"),
        (encoded(image(10, 90)), "too_small"),
        (encoded(image(1001, 1000)), "too_many_pixels"),
    ],
)
def test_an_image_that_cannot_be_stored_has_a_reason(data, reason):
    with pytest.raises(ImageError) as error:
        store_image(data, RULES)
    assert error.value.reason == reason


@given(data=st.binary(max_size=400), start=st.sampled_from([b"\xff\xd8\xff", b"RIFF", b"GIF8"]))
def test_no_bytes_crash_the_image_path(data, start):
    try:
        store_image(start + data, RULES)
    except ImageError as error:
        assert error.reason in REASONS


@given(
    width=st.integers(20, 300),
    height=st.integers(20, 300),
    scale=st.floats(0.05, 1),
    index=st.integers(0, 5),
)
def test_views_lie_within_the_image_and_depend_only_on_its_name(width, height, scale, index):
    view = random_view(width, height, scale, 7, "cc3m/1", index)
    assert view.x >= 0 and view.y >= 0
    assert view.x + view.width <= width and view.y + view.height <= height
    assert view == random_view(width, height, scale, 7, "cc3m/1", index)


@pytest.mark.parametrize(("width", "height"), [(400, 10), (10, 400)])
def test_the_view_equals_torchvision_s_if_no_box_fits(width, height):
    transform = torchvision.transforms.RandomResizedCrop
    blank = torch.zeros(3, height, width)
    y, x, box_height, box_width = transform.get_params(blank, [4.0, 4.0], [3 / 4, 4 / 3])
    view = random_view(width, height, 1.0, 7, "cc3m/1", 0)
    assert view[:4] == (x, y, box_width, box_height)


def test_views_differ_between_names_and_numbers():
    views = {random_view(200, 200, 0.2, 7, f"cc3m/{i}", j) for i in range(20) for j in range(2)}
    assert len(views) == 40


def test_without_flips_the_boxes_stay_and_no_view_is_mirrored():
    names = [f"cc3m/{i}" for i in range(60)]
    views = [random_view(200, 150, 0.2, 7, name, 0) for name in names]
    assert 15 < sum(view.flip for view in views) < 45
    unflipped = [random_view(200, 150, 0.2, 7, name, 0, flip=False) for name in names]
    assert unflipped == [view._replace(flip=False) for view in views]
    _, crop = random_cut(image(200, 150), 0.2, 7, names[0], 0, 32, flip=False)
    assert np.array_equal(crop, cut(image(200, 150), unflipped[0], 32))


def test_a_cut_is_a_crop_a_resize_and_a_flip():
    pixels = image(100, 80)
    box = cv2.resize(pixels[10:70, 20:80], (30, 30), interpolation=cv2.INTER_AREA)
    assert np.array_equal(cut(pixels, View(20, 10, 60, 60, False), 30), box)
    assert np.array_equal(cut(pixels, View(20, 10, 60, 60, True), 30), box[:, ::-1])


def test_the_bytes_of_a_small_upright_jpeg_are_kept():
    data = encoded(image(60, 50))
    assert store_image(data, RULES).jpeg == data
    assert store_image(encoded(image(60, 50), "PNG"), RULES).jpeg.startswith(JPEG)
    assert store_image(encoded(image(300, 50)), RULES).width == 300
    stuffed = encoded(image(60, 50), comment=b"x" * 20_000)
    assert len(store_image(stuffed, RULES).jpeg) < 10_000


@pytest.mark.parametrize("longest", [300, 700, 1500])
def test_decoding_at_a_fraction_gives_nearly_the_same_pixels(longest):
    rules = ImageRules(short_side=64, jpeg_quality=95, min_side=16, max_pixels=10_000_000)
    width, height = longest, longest * 5 // 7
    pixels = image(width, height)
    stored = store_image(encoded(pixels), rules)
    assert (stored.original_width, stored.original_height) == (width, height)
    whole = Image.fromarray(pixels).resize((stored.width, stored.height), Image.Resampling.BOX)
    difference = np.abs(decode_stored(stored.jpeg).astype(int) - np.asarray(whole))
    assert difference[..., :2].mean() < 4  # the third channel is a sawtooth


def with_alpha(pixels: np.ndarray, alpha: int) -> Image.Image:
    return Image.fromarray(np.dstack([pixels, np.full(pixels.shape[:2], alpha, np.uint8)]))


ORIENTED = Image.Exif()
ORIENTED[0x0112] = 6


@pytest.mark.parametrize(
    ("kind", "opened", "more", "like"),
    [
        ("JPEG", Image.fromarray(image(90, 70)).convert("CMYK"), {}, "rgb"),
        ("JPEG", Image.fromarray(image(90, 70)), {"progressive": True}, "rgb"),
        ("JPEG", Image.fromarray(image(90, 70)).convert("L"), {}, "gray"),
        ("JPEG", Image.fromarray(image(90, 70)), {"exif": ORIENTED}, "turned"),
        ("PNG", Image.fromarray(image(90, 70)), {"exif": ORIENTED}, "turned"),
        ("PNG", Image.fromarray(image(90, 70)).convert("P"), {}, "rgb"),
        ("PNG", Image.fromarray(image(90, 70)[..., 0].astype(np.uint16) * 257), {}, "red"),
        ("PNG", with_alpha(image(90, 70), 0), {}, "white"),
        ("PNG", with_alpha(image(90, 70), 255), {}, "rgb"),
        ("WEBP", with_alpha(image(90, 70), 0), {}, "white"),
        ("PNG", with_alpha(image(90, 70), 0).convert("LA"), {}, "white"),
        ("GIF", Image.fromarray(image(90, 70)), {"save_all": True, "append_images": [
            Image.fromarray(255 - image(90, 70))]}, "rgb"),
    ],
)  # fmt: skip
def test_every_image_format_becomes_upright_rgb(kind, opened, more, like):
    file = io.BytesIO()
    opened.save(file, kind, **more)
    stored = store_image(file.getvalue(), RULES)
    pixels = image(90, 70)
    expected = {
        "rgb": pixels,
        "gray": np.asarray(Image.fromarray(pixels).convert("L").convert("RGB")),
        "red": np.repeat(pixels[..., :1], 3, -1),
        "turned": np.ascontiguousarray(np.rot90(pixels, -1)),
        "white": np.full_like(pixels, 255),
    }[like]
    size = expected.shape[1::-1]
    assert (stored.original_width, stored.original_height) == size
    whole = cv2.resize(expected, (stored.width, stored.height), interpolation=cv2.INTER_AREA)
    assert np.abs(decode_stored(stored.jpeg).astype(int) - whole).mean() < 8


def test_a_decompression_bomb_is_rejected_by_its_header():
    width, height = 60_000, 60_000
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    bomb += struct.pack(">I", zlib.crc32(chunk)) + b"\0\0\0\0IDAT"
    with pytest.raises(ImageError) as error:
        store_image(bomb, RULES)
    assert error.value.reason == "too_many_pixels"


def test_the_grids_are_means_of_grid_cells():
    pixels = np.zeros((80, 80, 3), np.uint8)
    pixels[:20, :20] = (200, 100, 50)
    look = look_of(pixels)
    grid = np.frombuffer(look.colors, np.uint8).reshape(4, 4, 3)
    assert grid[0, 0].tolist() == [200, 100, 50] and not grid.reshape(16, 3)[1:].any()
    fine = np.frombuffer(look.gray, np.uint8).reshape(16, 16)
    luma = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)  # ITU-R BT.601
    assert (fine[:4, :4] == luma).all() and fine.sum() == 16 * luma


@pytest.mark.parametrize(
    ("split", "joined"),
    [
        ("a dog , a cat .", "a dog, a cat."),
        ("it 's ( nearly ) 50 % done", "it's (nearly) 50% done"),
        ("they do n't", "they don't"),
    ],
)
def test_cc3m_captions_are_detokenized(split, joined):
    assert detokenize(split) == joined


def test_captions_become_one_clean_line():
    assert clean_caption("  caf&eacute;\u200b\n au\tlait\x00 ") == "café au lait"
