"""Images as they occur on the web: damaged metadata, transparency, orientation, truncation, memory.

The expected pixels are written down or computed by numpy; common formats are tested in
``test_images_and_views.py``.
"""

import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from dataprep.images import ImageError, ImageRules, StoredImage, store_image
from tests.dataprep.small_images import RULES, chunk, encoded, error_of, gradient, shown


def png_with(name: bytes, content: bytes) -> bytes:
    """A PNG of the gradient with one more chunk behind its header."""
    data = encoded(gradient(), "PNG")
    return data[:33] + chunk(name, content) + data[33:]


def jpeg_with(marker: int, content: bytes) -> bytes:
    """A JPEG of the gradient with one more segment at its beginning."""
    data = encoded(gradient(), "JPEG", quality=95)
    return (
        data[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content + data[2:]
    )


METADATA = {
    "eXIf that ends early": png_with(b"eXIf", bytes.fromhex("0008000201120003")),
    "APP1 of nonsense": jpeg_with(0xE1, b"Exif\0\0" + b"\xff" * 16),
    "zTXt that unzips to more than a megabyte": png_with(
        b"zTXt", b"Comment\0\0" + zlib.compress(bytes((1 << 20) + 1))
    ),
    "iCCP that unzips to more than a megabyte": png_with(
        b"iCCP", b"x\0\0" + zlib.compress(bytes((1 << 20) + 1))
    ),
    "APP2 with a damaged profile": jpeg_with(0xE2, b"ICC_PROFILE\0\1\1" + b"\x99" * 200),
    "APP2 with half a profile header": jpeg_with(0xE2, b"ICC_PROFILE\0"),
    "APP14 that is too short": jpeg_with(0xEE, b"Ado"),
}


@pytest.mark.parametrize("case", METADATA)
def test_damaged_metadata_does_not_decide_over_the_pixels(case):
    assert np.abs(shown(METADATA[case]) - gradient()).mean() < 4


def test_the_detail_of_a_reject_repeats_from_run_to_run():
    details = {error_of(b"II*\x00" + b"\xff" * 40).detail for _ in range(5)}
    assert len(details) == 1 and "0x" not in details.pop()


@pytest.mark.parametrize("size", [(200, 65_501), (65_501, 200)])
def test_an_image_that_no_jpeg_can_hold_is_rejected(size):
    assert error_of(encoded(Image.new("L", size), "PNG")).reason == "unencodable"


def gray_with_transparent_black() -> bytes:
    return encoded(Image.new("L", (64, 64), 0), "PNG", transparency=0)


def deep_gray_with_transparent_black() -> bytes:
    data = encoded(np.zeros((64, 64), np.uint16), "PNG")
    return data[:33] + chunk(b"tRNS", b"\0\0") + data[33:]


def gif_with_transparent_first_frame() -> bytes:
    frames = [Image.new("P", (64, 64), 0), Image.new("P", (64, 64), 1)]
    for frame in frames:
        frame.putpalette([0, 0, 0, 200, 0, 0])
    more = {"save_all": True, "append_images": frames[1:], "transparency": 0, "disposal": 2}
    return encoded(frames[0], "GIF", **more)


TRANSPARENT = {
    "8-bit gray PNG with tRNS": gray_with_transparent_black,
    "16-bit gray PNG with tRNS": deep_gray_with_transparent_black,
    "GIF with a transparent first frame": gif_with_transparent_first_frame,
    "WebP": lambda: encoded(Image.new("RGBA", (64, 64)), "WEBP", lossless=True),
    "palette PNG": lambda: encoded(Image.new("P", (64, 64), 0), "PNG", transparency=0),
}


@pytest.mark.parametrize("case", TRANSPARENT)
def test_transparent_pixels_become_white(case):
    assert (shown(TRANSPARENT[case]()) >= 254).all()


def test_half_transparent_pixels_are_mixed_with_white():
    pixels = np.full((64, 64, 4), (200, 0, 0, 128), np.uint8)
    for form, more in (("PNG", {}), ("WEBP", {"lossless": True})):
        mean = shown(encoded(pixels, form, **more)).mean((0, 1))
        assert np.abs(mean - (227.4, 127, 127)).max() < 2


ORIENTATIONS = {  # EXIF 2.3, tag 274: what a viewer does with the stored rows
    1: lambda p: p,
    2: np.fliplr,
    3: lambda p: np.rot90(p, 2),
    4: np.flipud,
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: np.rot90(p.transpose(1, 0, 2), 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "RGBA PNG", "WEBP", "TIFF", "AVIF"])
def test_orientation_is_applied_in_every_format(form, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    image = Image.fromarray(gradient())
    if form == "RGBA PNG":
        image = image.convert("RGBA")
    data = encoded(image, form.split()[-1], exif=exif, quality=95)
    stored = store_image(data, RULES)
    expected = ORIENTATIONS[orientation](gradient())
    assert (stored.original_height, stored.original_width) == expected.shape[:2]
    assert np.abs(shown(data) - expected).mean() < 4


def test_data_after_the_end_marker_is_ignored():
    data = encoded(gradient(), "JPEG")
    assert store_image(data + bytes(len(data)), RULES).jpeg == data


def test_an_end_marker_inside_metadata_is_not_the_end():
    data = jpeg_with(0xE1, b"Exif\0\0" + b"\xff\xd9" * 10)
    assert np.abs(shown(data) - gradient()).mean() < 4


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.9])
@pytest.mark.parametrize("side", [256, 32])
def test_half_a_scan_with_an_end_marker_is_truncated(mode, fraction, side):
    noise = np.random.default_rng(0).integers(0, 256, (256, 300, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise).convert(mode), "JPEG")
    start = data.index(b"\xff\xda")
    cut = data[: start + int((len(data) - start) * fraction)].rstrip(b"\xff") + b"\xff\xd9"
    rules = ImageRules(side, 95, 16, 200_000_000)
    with pytest.raises(ImageError, match="undecodable: truncated"):
        store_image(cut, rules)
    assert store_image(data, rules).width


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_complete_gray_image_is_not_taken_for_a_truncated_one(mode, progressive):
    image = Image.new("RGB", (100, 70), (128, 128, 128)).convert(mode)
    stored = store_image(encoded(image, "JPEG", progressive=progressive), RULES)
    assert (stored.width, stored.height) == (100, 70)


SPARSE_GIF = bytes.fromhex(
    "474946383961a00fa00ff10000000000c81e3c00c8000000ff21f904010a0000002c000000000100010000020244"
    "01003b"
)
"A 4000 by 4000 canvas with a frame of one pixel."
_PEAK = """
import sys
from pathlib import Path
from dataprep.images import ImageRules, store_image

def peak():  # of this process; getrusage's would include its parent's
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024

rules = ImageRules(int(sys.argv[2]), 95, 32, 200_000_000)
data = Path(sys.argv[1]).read_bytes()
before = peak()
stored = store_image(data, rules)
print((peak() - before) / stored.original_width / stored.original_height)
"""


def large(form: str, mode: str = "RGB", **more) -> bytes:
    image = Image.linear_gradient("L").resize((3000, 3000)).convert(mode)
    return encoded(image, form, **more)


TURNED = Image.Exif()
TURNED[274] = 6
LARGE = {
    "sparse GIF": lambda: SPARSE_GIF,
    "GIF": lambda: large("GIF", "P"),
    "RGBA PNG": lambda: large("PNG", "RGBA"),
    "gray PNG": lambda: large("PNG", "L"),
    "1-bit PNG": lambda: large("PNG", "1"),
    "palette PNG with transparency": lambda: large("PNG", "P", transparency=0),
    "16-bit PNG": lambda: encoded(np.zeros((3000, 3000), np.uint16), "PNG"),
    "lossless WebP": lambda: large("WEBP", "RGBA", lossless=True, method=0),
    "turned WebP": lambda: large("WEBP", method=0, exif=TURNED),
    "progressive JPEG that may be truncated": lambda: encoded(
        Image.new("RGB", (3000, 3000), (128, 128, 128)), "JPEG", progressive=True, subsampling=0
    ),
    "progressive CMYK JPEG": lambda: large("JPEG", "CMYK", progressive=True),
    "turned TIFF": lambda: large("TIFF", exif=TURNED),
    "LZW TIFF": lambda: large("TIFF", "RGBA", compression="tiff_lzw"),
    "BMP": lambda: large("BMP"),
}


@pytest.mark.slow
@pytest.mark.parametrize("short_side", [256, 4000])
@pytest.mark.parametrize("case", LARGE)
def test_decoding_takes_less_than_12_bytes_a_pixel(case, short_side, tmp_path):
    (tmp_path / "image").write_bytes(LARGE[case]())
    command = [sys.executable, "-c", _PEAK, str(tmp_path / "image"), str(short_side)]
    bytes_per_pixel = float(subprocess.check_output(command))
    assert 0 < bytes_per_pixel < 12


def test_formats_with_costly_decoders_have_half_the_pixel_limit():
    rules = ImageRules(64, 95, 16, 10_000)
    assert store_image(encoded(gradient(90, 100), "PNG"), rules).width
    with pytest.raises(ImageError, match="too_many_pixels"):
        store_image(encoded(gradient(90, 100), "AVIF"), rules)


def test_the_first_frame_alone_is_shown():
    for form in ("GIF", "WEBP", "PNG", "TIFF"):
        second = Image.fromarray(255 - gradient())
        more = {"save_all": True, "append_images": [second], "quality": 95}
        data = encoded(Image.fromarray(gradient()), form, **more)
        assert np.abs(shown(data) - gradient()).mean() < 12, form


def test_a_frame_smaller_than_its_canvas_keeps_the_canvas():
    stored = store_image(SPARSE_GIF, RULES)
    assert (stored.original_width, stored.original_height) == (4000, 4000)


def test_every_stored_image_has_bytes():
    stored = store_image(encoded(gradient(), "PNG"), RULES)
    assert isinstance(stored, StoredImage) and stored.jpeg[-2:] == b"\xff\xd9"
