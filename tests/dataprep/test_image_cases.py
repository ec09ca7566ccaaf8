"""Images as they occur on the web: damaged metadata, odd formats, truncation, color profiles.

The expected pixels are written down or computed by numpy; common formats are tested in
``test_images_and_views.py``.
"""

import gzip
import io
import pickle
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from dataprep.fetch import FetchError
from dataprep.images import ImageError, ImageRules, StoredImage, decode_stored, store_image
from dataprep.sources.members import MemberError

RULES = ImageRules(short_side=256, jpeg_quality=95, min_side=16, max_pixels=200_000_000)
PNG = b"\x89PNG\r\n\x1a\n"
WHITE = (255, 255, 255)


def gradient(width: int = 96, height: int = 64) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, 0 * x + 90], -1).astype(np.uint8)


def encoded(pixels, form: str, **more) -> bytes:
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, form, **more)
    return file.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)


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


def shown(data: bytes) -> np.ndarray:
    return decode_stored(store_image(data, RULES).jpeg).astype(int)


def error_of(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        store_image(data, RULES)
    return caught.value


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
import resource, sys
from dataprep.images import ImageRules, store_image
rules = ImageRules(256, 95, 32, 200_000_000)
data = open(sys.argv[1], "rb").read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
stored = store_image(data, rules)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((peak - before) * 1024 / stored.original_width / stored.original_height)
"""


def large(form: str, mode: str = "RGB", **more) -> bytes:
    image = Image.linear_gradient("L").resize((3000, 3000)).convert(mode)
    return encoded(image, form, **more)


LARGE = {
    "sparse GIF": lambda: SPARSE_GIF,
    "RGBA PNG": lambda: large("PNG", "RGBA"),
    "lossless WebP": lambda: large("WEBP", "RGBA", lossless=True, method=0),
    "TIFF": lambda: large("TIFF"),
    "BMP": lambda: large("BMP"),
    "gray PNG": lambda: large("PNG", "L"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", LARGE)
def test_decoding_takes_less_than_12_bytes_a_pixel(case, tmp_path):
    (tmp_path / "image").write_bytes(LARGE[case]())
    command = [sys.executable, "-c", _PEAK, str(tmp_path / "image")]
    bytes_per_pixel = float(subprocess.check_output(command))
    assert bytes_per_pixel < 12


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


@pytest.mark.parametrize(
    ("data", "reason", "word"),
    [
        (b"\x00\x00\x00\x18ftypheic" + bytes(50), "unsupported_format", "HEIC"),
        (encoded(gradient(), "JPEG2000"), "unsupported_format", "JPEG 2000"),
        (b"\xff\x0a" + bytes(50), "unsupported_format", "JPEG XL"),
        (b"\x00\x00\x00\x0cJXL \r\n\x87\n" + bytes(50), "unsupported_format", "JPEG XL"),
        (encoded(np.ones((64, 64), np.float32), "TIFF"), "unsupported_format", "32 bits"),
        (gzip.compress(b"<svg/>", mtime=0), "not_an_image", "svg"),
        (b"\x1f\x8b" + bytes(50), "undecodable", "gzip"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "not_an_image", "RIFF"),
    ],
)
def test_a_format_that_is_not_decoded_is_named(data, reason, word):
    error = error_of(data)
    assert error.reason == reason and word in error.detail


def test_avif_and_gzipped_images_are_decoded():
    assert np.abs(shown(encoded(gradient(), "AVIF", quality=95)) - gradient()).mean() < 6
    jpeg = encoded(gradient(), "JPEG")
    stored = store_image(gzip.compress(jpeg), RULES)
    assert stored.jpeg == jpeg and stored.original_bytes != len(jpeg)


P3_TO_XYZ = np.array(  # columns red, green, blue, adapted to D50
    [[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]]
)
SRGB_TO_XYZ = np.array(
    [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]]
)


def display_p3(gamma: float = 2.2) -> bytes:
    """An ICC profile (version 2) with the primaries of Display P3 and a plain gamma curve."""

    def xyz(values) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))

    name = b"Wide gamut\0"
    curve = b"curv\0\0\0\0" + struct.pack(">IHxx", 1, round(gamma * 256))
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + bytes(79),
        b"wtpt": xyz((0.9642, 1.0, 0.8249)),
        **{b"rgb"[i : i + 1] + b"XYZ": xyz(P3_TO_XYZ[:, i]) for i in range(3)},
        **{b"rgb"[i : i + 1] + b"TRC": curve for i in range(3)},
    }
    table, body = struct.pack(">I", len(tags)), b""
    for tag, content in tags.items():
        table += tag + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    size = 128 + len(table) + len(body)
    header = struct.pack(">I4x", size) + b"\x02\x10\0\0mntrRGB XYZ " + bytes(12) + b"acsp"
    header += bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + table + body


@pytest.mark.parametrize("side", [200, 300])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_display_p3_is_converted_to_srgb(form, side):
    color = np.array([180, 90, 60])
    pixels = np.full((side, side, 3), color, np.uint8)
    data = encoded(pixels, form, icc_profile=display_p3(), quality=95)
    linear = np.linalg.solve(SRGB_TO_XYZ, P3_TO_XYZ @ (color / 255) ** 2.2)
    expected = 255 * np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 0)
    assert np.abs(expected - color).max() > 8
    assert np.abs(shown(data).mean((0, 1)) - expected).max() < 3
    assert b"ICC_PROFILE" not in store_image(data, RULES).jpeg


def test_an_srgb_profile_leaves_the_bytes_of_a_jpeg_alone():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = encoded(gradient(), "JPEG", icc_profile=profile)
    assert store_image(data, RULES).jpeg == data


@pytest.mark.parametrize(
    "error", [ImageError("a", "b"), MemberError("a", "b"), FetchError("a", "b", retry_after_s=3)]
)
def test_exceptions_survive_pickling(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and str(again) == str(error) == "a: b"
    assert vars(again) == vars(error)


def test_every_stored_image_has_bytes():
    stored = store_image(encoded(gradient(), "PNG"), RULES)
    assert isinstance(stored, StoredImage) and stored.jpeg[-2:] == b"\xff\xd9"
