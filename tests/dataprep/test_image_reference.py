"""Stored pixels against Pillow's own decoding, orientation and compositing, or computed ones.

Pillow alone decides what is expected: the first frame, turned by ``ImageOps.exif_transpose``, on
white. Where Pillow is known to be wrong, numpy computes the pixels.
"""

import io
import itertools
import struct

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from dataprep.images import ImageRules, decode_stored, store_image
from tests.dataprep.image_mutations import interlaced_png, png, restart_jpeg
from tests.dataprep.small_images import chunk, encoded

RULES = ImageRules(short_side=256, jpeg_quality=100, min_side=16, max_pixels=200_000_000)
y, x = np.mgrid[:72, :104]
PIXELS = np.stack([x * 255 // 104, y * 255 // 72, (x + y) * 255 // 176], -1).astype(np.uint8)
RGB = Image.fromarray(PIXELS)
RGBA = Image.merge("RGBA", (*RGB.split(), Image.linear_gradient("L").resize(RGB.size)))


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[274] = orientation
    return tags


def shown(data: bytes) -> np.ndarray:
    return decode_stored(store_image(data, RULES).jpeg).astype(int)


def by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        image = ImageOps.exif_transpose(image)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        return np.asarray(image.convert("RGB")).astype(int)


def adobe_rgb_jpeg() -> bytes:
    """A JPEG whose components are red, green and blue, as its APP14 segment says."""
    return encoded(RGB, "JPEG", keep_rgb=True, quality=98)


ANIMATED = {"save_all": True, "append_images": [ImageOps.invert(RGB)]}
FILES = {
    "CMYK JPEG": encoded(RGB.convert("CMYK"), "JPEG", quality=98),
    "progressive CMYK JPEG": encoded(RGB.convert("CMYK"), "JPEG", quality=98, progressive=True),
    "gray JPEG": encoded(RGB.convert("L"), "JPEG", quality=98),
    "RGB JPEG": adobe_rgb_jpeg(),
    "progressive JPEG": encoded(RGB, "JPEG", quality=98, progressive=True),
    "JPEG with restart markers": restart_jpeg(PIXELS),
    "1-bit PNG": encoded(RGB.convert("1"), "PNG"),
    "1-bit PNG, black transparent": encoded(RGB.convert("1"), "PNG", transparency=0),
    "1-bit PNG, white transparent": encoded(RGB.convert("1"), "PNG", transparency=1),
    "palette PNG with alphas": encoded(RGB.quantize(16), "PNG", transparency=bytes(range(16))),
    "palette PNG, one color transparent": encoded(RGB.quantize(16), "PNG", transparency=5),
    "gray PNG, one value transparent": encoded(RGB.convert("L"), "PNG", transparency=100),
    "RGB PNG, one color transparent": encoded(RGB, "PNG", transparency=(0, 0, 0)),
    "gray PNG with alpha": encoded(RGBA.convert("LA"), "PNG"),
    "RGBA PNG": encoded(RGBA, "PNG"),
    "interlaced PNG": interlaced_png(PIXELS),
    "interlaced RGBA PNG": interlaced_png(np.asarray(RGBA)),
    "animated PNG": encoded(RGB, "PNG", **ANIMATED),
    "GIF": encoded(RGB.quantize(64), "GIF"),
    "interlaced GIF, one color transparent": encoded(
        RGB.quantize(64), "GIF", transparency=9, interlace=1
    ),
    "animated GIF": encoded(RGB.quantize(64), "GIF", **ANIMATED),
    "WebP": encoded(RGB, "WEBP", quality=100),
    "WebP with alpha": encoded(RGBA, "WEBP", quality=100),
    "lossless WebP": encoded(RGBA, "WEBP", lossless=True),
    "animated WebP": encoded(RGBA, "WEBP", lossless=True, **ANIMATED),
    "AVIF": encoded(RGB, "AVIF", quality=95),
    "AVIF with alpha": encoded(RGBA, "AVIF", quality=95),
    "gray AVIF": encoded(RGB.convert("L"), "AVIF", quality=95),
    "animated AVIF": encoded(RGB, "AVIF", quality=95, **ANIMATED),
    "BMP": encoded(RGB, "BMP"),
    "1-bit BMP": encoded(RGB.convert("1"), "BMP"),
    "BMP with alpha": encoded(RGBA, "BMP"),
    "TIFF": encoded(RGBA, "TIFF", compression="tiff_lzw"),
    "CMYK TIFF": encoded(RGB.convert("CMYK"), "TIFF"),
    "Lab TIFF": encoded(Image.merge("LAB", RGB.split()), "TIFF"),
    "1-bit TIFF": encoded(RGB.convert("1"), "TIFF", compression="group4"),
    "big TIFF": encoded(RGB, "TIFF", big_tiff=True),
}


@pytest.mark.parametrize("name", FILES)
def test_the_stored_pixels_are_pillow_s_on_white(name):
    difference = np.abs(shown(FILES[name]) - by_pillow(FILES[name]))
    assert difference.mean() < 3 and np.percentile(difference, 98) < 24, name


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("form", "image"),
    [
        *itertools.product(("JPEG", "PNG", "WEBP", "TIFF", "AVIF"), [RGB]),
        *itertools.product(("JPEG", "TIFF"), [RGB.convert("CMYK")]),
        *itertools.product(("PNG", "WEBP", "TIFF", "AVIF"), [RGBA]),
        ("PNG", RGBA.convert("LA")),
        ("PNG", RGB.quantize(16)),
        ("PNG", RGB.convert("1")),
        ("PNG", Image.fromarray((x * 600).astype(np.uint16))),
        ("JPEG", RGB.convert("L")),
        ("TIFF", RGB.convert("L")),
    ],
    ids=lambda value: getattr(value, "mode", value),
)
def test_the_orientation_is_applied_in_every_format_and_mode(form, image, orientation):
    data = encoded(image, form, exif=exif(orientation), quality=98)
    if image.mode == "I;16":  # Pillow would clip the values
        high = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        expected = by_pillow(encoded(high, form, exif=exif(orientation)))
    else:
        expected = by_pillow(data)
    stored = store_image(data, RULES)
    assert (stored.original_height, stored.original_width) == expected.shape[:2]
    assert np.abs(shown(data) - expected).mean() < 4


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_upright(orientation):
    for form in ("JPEG", "PNG", "WEBP", "TIFF"):
        data = encoded(RGB, form, exif=exif(orientation), quality=98)
        assert np.abs(shown(data) - PIXELS).mean() < 4, form


def packed(values: np.ndarray, depth: int) -> np.ndarray:
    """Rows of a gray PNG with ``depth`` bits per pixel."""
    bits = np.unpackbits(values.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
    return np.packbits(bits.reshape(len(values), -1), axis=-1)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("number", [0, 1, -1])
def test_one_transparent_value_of_a_gray_png_becomes_white(depth, number):
    """Computed: the PNG specification compares values before they are scaled to 8 bits."""
    largest = (1 << depth) - 1
    values = (x // 8) % (largest + 1)
    transparent = number % (largest + 1)
    extra = chunk(b"tRNS", struct.pack(">H", transparent))
    data = png(packed(values, depth), (104, 72), depth, 0, extra)
    expected = np.where(values == transparent, 255, values * 255 // largest)
    assert np.abs(shown(data) - expected[..., None]).mean() < 3


@pytest.mark.parametrize("color", [(0, 0, 0), (0x1234, 0x5678, 0x9ABC), (0xFFFF, 1, 0)])
def test_one_transparent_color_of_16_bits_is_told_from_its_neighbors(color):
    pixels = np.zeros((64, 64, 3), np.uint16) + np.array(color, np.uint16)
    pixels[:, 32:, 1] ^= 1  # another color, though its upper 8 bits are the same
    rows = pixels.astype(">u2").reshape(64, -1)
    data = png(rows, (64, 64), 16, 2, chunk(b"tRNS", struct.pack(">3H", *color)))
    found = shown(data)
    assert (found[:, :28] > 250).all()
    assert np.abs(found[:, 36:] - np.array(color) // 256).max() < 6


@pytest.mark.parametrize("value", [0, 0x1234, 0xFFFF])
def test_one_transparent_gray_of_16_bits_is_told_from_its_neighbors(value):
    values = np.full((64, 64), value, ">u2")
    values[:, 32:] ^= 1
    data = png(values, (64, 64), 16, 0, chunk(b"tRNS", struct.pack(">H", value)))
    found = shown(data)
    assert (found[:, :28] > 250).all() and np.abs(found[:, 36:] - value // 256).max() < 6


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"tRNS", b"\0\0"),  # of a gray image
        chunk(b"tRNS", bytes(7)),
        chunk(b"tRNS", struct.pack(">3H", 256, 0, 0)),
        chunk(b"tRNS", b""),
    ],
)
def test_an_invalid_transparent_color_is_ignored_as_libpng_does(extra):
    data = png(PIXELS.reshape(72, -1), (104, 72), 8, 2, extra)
    assert np.abs(shown(data) - PIXELS).mean() < 3


def gif_on_canvas(canvas: tuple[int, int], corner: tuple[int, int]) -> bytes:
    """A GIF whose only frame, all in color 1, covers a part of its canvas."""
    frame = Image.new("P", (24, 24), 1)
    frame.putpalette([0, 0, 0, 200, 0, 0])
    data = encoded(frame, "GIF", optimize=False)
    at = data.index(b"\x2c", 13)
    moved = data[: at + 1] + struct.pack("<HH", *corner) + data[at + 5 :]
    return moved[:6] + struct.pack("<HH", *canvas) + moved[10:]


@pytest.mark.parametrize("corner", [(0, 0), (40, 0), (30, 25), (40, 40)])
def test_the_part_of_a_gif_s_canvas_without_frame_is_white(corner):
    found = shown(gif_on_canvas((64, 64), corner))
    inside = np.zeros((64, 64), bool)
    inside[corner[1] : corner[1] + 24, corner[0] : corner[0] + 24] = True
    center = found[corner[1] + 12, corner[0] + 12]
    assert np.abs(center - (200, 0, 0)).max() < 8
    assert np.abs(found[~inside] - 255).mean() < 8


def test_the_part_of_a_webp_s_canvas_without_frame_is_white():
    """Written by libwebp, which stores the part of a frame that is not transparent."""
    first = Image.new("RGBA", (80, 60))
    first.paste((200, 0, 0, 255), (20, 10, 60, 50))
    more = {"save_all": True, "append_images": [RGBA.resize((80, 60))]}
    data = encoded(first, "WEBP", lossless=True, **more)
    found = shown(data)
    assert np.abs(found - by_pillow(data)).mean() < 3
    assert np.abs(found[30, 40] - (200, 0, 0)).max() < 8 and (found[:6] > 250).all()


def test_a_deep_image_keeps_its_upper_bits():
    deep = (x * 65535 // 103).astype(np.uint16)
    for form in ("PNG", "TIFF"):
        found = shown(encoded(Image.fromarray(deep), form))
        assert np.abs(found - (deep >> 8)[..., None]).mean() < 3, form
    color = np.stack([deep, deep[:, ::-1], deep // 2], -1)
    done, data = cv2.imencode(".png", color)
    assert done and np.abs(shown(bytes(data)) - (color >> 8)[..., ::-1]).mean() < 3
