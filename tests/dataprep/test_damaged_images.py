"""What decides over a damaged image: its pixels do, metadata and later frames do not."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from dataprep.images import ImageError, ImageRules, decode_stored, store_image
from dataprep.jpeg_segments import read_segments
from tests.dataprep.image_mutations import interlaced_png, png, restart_jpeg
from tests.dataprep.small_images import chunk, encoded

RULES = ImageRules(short_side=512, jpeg_quality=95, min_side=16, max_pixels=200_000_000)
y, x = np.mgrid[:200, :296]
NOISE = np.random.default_rng(0).integers(0, 16, (200, 296, 1))
PIXELS = (np.stack([x * 0.8, y, 0 * x + 90], -1) + NOISE).astype(np.uint8)
ROUGH = Image.fromarray(np.random.default_rng(1).integers(0, 256, (200, 296, 3), dtype=np.uint8))
RGB = Image.fromarray(PIXELS)
NEGATIVE = ImageOps.invert(RGB)
EOI = b"\xff\xd9"


def shown(data: bytes) -> np.ndarray:
    return decode_stored(store_image(data, RULES).jpeg).astype(int)


def error_of(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        store_image(data, RULES)
    return caught.value


def patched(data: bytes, at: int, content: bytes) -> bytes:
    return data[:at] + content + data[at + len(content) :]


def png_with(*extra: bytes, after: bool = False) -> bytes:
    """A PNG with more chunks behind its header, or before its end."""
    data = encoded(RGB, "PNG")
    at = len(data) - 12 if after else 33
    return data[:at] + b"".join(extra) + data[at:]


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(
        name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
        for name, content in chunks
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def webp_with(**extra: bytes) -> bytes:
    """A lossless WebP with chunks of metadata behind its image."""
    coded = encoded(RGB, "WEBP", lossless=True)[20:]
    header = bytes([0x2C, 0, 0, 0]) + struct.pack("<I", 295)[:3] + struct.pack("<I", 199)[:3]
    more = [(name.encode(), content) for name, content in extra.items()]
    return riff((b"VP8X", header), (b"VP8L", coded), *more)


def wrong_checksum(whole: bytes) -> bytes:
    return whole[:-1] + bytes([whole[-1] ^ 1])


def avif_with_damaged_exif() -> bytes:
    data = encoded(RGB, "AVIF", quality=95, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0")
    return patched(data, data.index(b"II*\0"), b"\xff" * 8)


def jpeg_with(*segments: tuple[int, bytes]) -> bytes:
    data = encoded(RGB, "JPEG", quality=95)
    more = b"".join(
        bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content
        for marker, content in segments
    )
    return data[:2] + more + data[2:]


NONSENSE = b"\xff" * 40
GIF = encoded(RGB.quantize(256), "GIF")  # its colors end at byte 781
METADATA = {
    "PNG eXIf with a wrong checksum": png_with(wrong_checksum(chunk(b"eXIf", b"II*\0\x08\0\0\0"))),
    "PNG iCCP with a wrong checksum": png_with(wrong_checksum(chunk(b"iCCP", b"x\0\0xx"))),
    "PNG eXIf of nonsense": png_with(chunk(b"eXIf", NONSENSE)),
    "PNG eXIf without bytes": png_with(chunk(b"eXIf", b"")),
    "PNG tEXt without keyword": png_with(chunk(b"tEXt", b"\0" * 9), chunk(b"iTXt", b"x")),
    "PNG zTXt that is not zlib": png_with(chunk(b"zTXt", b"Comment\0\0xxx")),
    "PNG pHYs, tIME, gAMA, cHRM that are too short": png_with(
        *(chunk(name, b"\1") for name in (b"pHYs", b"tIME", b"gAMA", b"cHRM", b"sRGB"))
    ),
    "PNG with damaged chunks of an animation": png_with(
        chunk(b"acTL", b"\0"), chunk(b"fcTL", b"\1\2"), chunk(b"fdAT", b"")
    ),
    "PNG text that runs over the end of the file": png_with(b"\0\1\0\0tEXtabc", after=True),
    "PNG eXIf of nonsense behind the pixels": png_with(chunk(b"eXIf", NONSENSE), after=True),
    "WebP EXIF of nonsense": webp_with(EXIF=NONSENSE),
    "WebP profile of nonsense": webp_with(ICCP=NONSENSE),
    "WebP XMP that runs over the end of the file": webp_with(**{"XMP ": NONSENSE})[:-30],
    "WebP with a wrong file size": b"RIFF\xff\xff\xff\x7f" + webp_with()[8:],
    "WebP that is shorter than its file size": b"RIFF\1\0\0\0" + webp_with()[8:],
    "AVIF with damaged EXIF": avif_with_damaged_exif(),
    "JPEG APP1 with half a header": jpeg_with((0xE1, b"Exif\0\0II*\0")),
    "JPEG APP1 whose first offset is far away": jpeg_with((0xE1, b"Exif\0\0MM\0*\x7f\xff\xff\xff")),
    "JPEG APP13 and COM of nonsense": jpeg_with((0xED, NONSENSE), (0xFE, NONSENSE)),
    "JPEG APP2 that lacks a part of its profile": jpeg_with(
        (0xE2, b"ICC_PROFILE\0\2\3" + NONSENSE)
    ),
    "TIFF with a text tag far away": encoded(RGB, "TIFF", description="x" * 40).replace(
        b"\x0e\x01\x02\0", b"\x0e\x01\x02\xff"
    ),
    "BMP with a nonsense resolution": patched(encoded(RGB, "BMP"), 38, NONSENSE[:8]),
    "GIF with nonsense extensions": GIF[:781] + b"!\xfe\x02\xff\xff\0!\xff\x01\xff\0" + GIF[781:],
}


@pytest.mark.parametrize("case", METADATA)
def test_metadata_that_cannot_be_read_does_not_decide_over_the_pixels(case):
    limit = 14 if case.startswith("GIF") else 5
    assert np.abs(shown(METADATA[case]) - PIXELS).mean() < limit


def test_a_damaged_tag_beside_the_orientation_does_not_hide_it():
    tags = Image.Exif()
    tags[274], tags[315] = 6, "x" * 39
    content = tags.tobytes()
    order = "<" if b"II*" in content[:10] else ">"
    damaged = content.replace(struct.pack(order + "I", 40), struct.pack(order + "I", 1 << 30))
    assert damaged != content
    for form in ("JPEG", "PNG", "WEBP"):
        stored = store_image(encoded(RGB, form, exif=damaged), RULES)
        assert (stored.width, stored.height) == (200, 296), form


FIRST_FRAME = {
    form: encoded(image, form, save_all=True, append_images=[second], **more)
    for form, image, second, more in (
        ("GIF", RGB.quantize(255), NEGATIVE.quantize(255), {}),
        ("WEBP", RGB, NEGATIVE, {"lossless": True}),
        ("PNG", RGB, NEGATIVE, {}),
        ("TIFF", RGB, NEGATIVE, {}),
        ("AVIF", RGB, NEGATIVE, {"quality": 95}),
        ("MPO", RGB, NEGATIVE, {"quality": 95}),
    )
}


@pytest.mark.parametrize("form", FIRST_FRAME)
def test_what_follows_the_first_frame_changes_nothing(form):
    data = FIRST_FRAME[form]
    whole = shown(data)
    assert np.abs(whole - PIXELS).mean() < 12
    changed = [data[:-200], data[:-9], data[:-900] + bytes(900), data + b"\0" * 5000]
    if form == "TIFF":  # its directory of pages may lie behind the pixels
        changed = [data + b"\0" * 5000]
    for number, other in enumerate(changed):
        assert np.array_equal(shown(other), whole), number


def cut_scan(data: bytes, fraction: float) -> bytes:
    """A JPEG with a part of its scans, and an end marker behind."""
    start = data.index(b"\xff\xda")
    return data[: start + int((len(data) - start) * fraction)].rstrip(b"\xff") + EOI


@pytest.mark.parametrize("image", [RGB, ROUGH], ids=["smooth", "rough"])
@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.5])
@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
@pytest.mark.parametrize("side", [512, 64])
def test_a_progressive_jpeg_without_its_later_scans_is_truncated(image, fraction, mode, side):
    data = encoded(image.convert(mode), "JPEG", progressive=True)
    rules = ImageRules(side, 95, 16, 10**8)
    assert store_image(data, rules).width
    with pytest.raises(ImageError, match="undecodable: truncated"):
        store_image(cut_scan(data, fraction), rules)


@pytest.mark.parametrize("image", [RGB, ROUGH], ids=["smooth", "rough"])
@pytest.mark.parametrize("fraction", [0.45, 0.55, 0.65, 0.75, 0.85, 0.95])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_progressive_jpeg_that_lacks_details_alone_shows_the_whole_image(image, fraction, mode):
    data = encoded(image.convert(mode), "JPEG", progressive=True)
    cut = cut_scan(data, fraction)
    try:
        found = shown(cut)
    except ImageError as error:
        assert "truncated" in error.detail
    else:
        assert np.abs(found - shown(data)).mean() < 5


def test_a_jpeg_that_lacks_an_interval_between_restart_markers_is_rejected():
    data = restart_jpeg(PIXELS)
    marks = [data.index(bytes([0xFF, 0xD0 + number])) for number in (2, 3, 5)]
    assert store_image(data, RULES).width
    for first, last in ((0, 1), (1, 2)):
        error = error_of(data[: marks[first]] + data[marks[last] :])
        assert error.reason == "undecodable" and "missing" in error.detail


def test_a_jpeg_that_lacks_a_part_in_the_middle_is_rejected():
    data = encoded(RGB, "JPEG", quality=90)
    start = data.index(b"\xff\xda") + 14
    for size in (500, 3000, 9000):
        assert error_of(data[: start + 800] + data[start + 800 + size :]).reason == "undecodable"


def test_data_behind_a_jpeg_does_not_matter_even_if_it_looks_like_an_image():
    data = encoded(RGB, "JPEG", quality=90)
    for behind in (bytes(len(data)), EOI * 9, data, data[:500], b"\r\n<html>", NONSENSE):
        assert store_image(data + behind, RULES).jpeg == data


def test_a_thumbnail_inside_the_metadata_is_not_the_image():
    thumbnail = encoded(RGB.resize((60, 40)), "JPEG")
    for marker in (0xE1, 0xE2, 0xED, 0xFE):
        stored = store_image(jpeg_with((marker, b"Exif\0\0" + thumbnail)), RULES)
        assert (stored.width, stored.height) == (296, 200)


def test_a_jpeg_with_absurdly_many_scans_is_rejected_before_it_is_decoded():
    data = encoded(RGB, "JPEG", progressive=True)
    segments = read_segments(data)
    start, end = segments.scan_ends[-2], segments.scan_ends[-1]
    error = error_of(data[:end] + data[start:end] * 200 + EOI)
    assert error.reason == "undecodable" and "scans" in error.detail


HALF_ROWS = b"".join(b"\0" + row.tobytes() for row in PIXELS[:100])
SIZE = struct.pack(">II", 296, 200)
IHDR, INTERLACED = (chunk(b"IHDR", SIZE + bytes([8, 2, 0, 0, way])) for way in (0, 1))
TRUNCATED = {
    "PNG whose pixels end early": b"\x89PNG\r\n\x1a\n"
    + IHDR
    + chunk(b"IDAT", zlib.compress(HALF_ROWS))
    + chunk(b"IEND", b""),
    "interlaced PNG whose pixels end early": b"\x89PNG\r\n\x1a\n"
    + INTERLACED
    + chunk(b"IDAT", zlib.compress(HALF_ROWS))
    + chunk(b"IEND", b""),
    "PNG with a flipped bit": (lambda d: d[:5000] + bytes([d[5000] ^ 4]) + d[5001:])(
        encoded(RGB, "PNG")
    ),
    "PNG cut in two": encoded(RGB, "PNG")[:60_000],
    "interlaced PNG cut in two": interlaced_png(PIXELS)[:60_000],
    "GIF cut in two": encoded(RGB.quantize(255), "GIF")[:30_000],
    "GIF cut in two, with its end": encoded(RGB.quantize(255), "GIF")[:30_000] + b"\0;",
    "WebP cut in two": encoded(RGB, "WEBP")[:5000],
    "WebP cut in two, sizes made right": riff((b"VP8 ", encoded(RGB, "WEBP")[20:5000])),
    "lossless WebP cut in two, sizes made right": riff(
        (b"VP8L", encoded(RGB, "WEBP", lossless=True)[20:16_000])
    ),
    "BMP cut in two": encoded(RGB, "BMP")[:80_000],
    "TIFF cut in two": encoded(RGB, "TIFF")[:80_000],
    "LZW TIFF cut in two": encoded(RGB, "TIFF", compression="tiff_lzw")[:80_000],
    "AVIF cut in two": encoded(RGB, "AVIF")[:4000],
}


@pytest.mark.parametrize("case", TRUNCATED)
def test_a_truncated_image_is_rejected_and_never_filled_up(case):
    assert error_of(TRUNCATED[case]).reason == "undecodable"


def test_a_png_whose_last_row_is_black_is_complete():
    dark = PIXELS.copy()
    dark[150:] = 0
    for data in (encoded(Image.fromarray(dark), "PNG"), interlaced_png(dark)):
        assert np.abs(shown(data)[150:]).mean() < 4
    assert png(np.zeros((64, 24), np.uint8), (192, 64), 1, 0)  # all of it
    assert (shown(png(np.zeros((64, 24), np.uint8), (192, 64), 1, 0)) < 3).all()


def test_a_detail_repeats_and_has_no_memory_address():
    for data in (*TRUNCATED.values(), b"GIF89a" + NONSENSE, b"II*\0" + NONSENSE, b"BM" + bytes(60)):
        first, second = error_of(data), error_of(data)
        assert first.detail == second.detail and " at 0x" not in first.detail


def test_a_file_without_pixels_in_its_header_is_damaged():
    empty = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(8) + b"\x08\2\0\0\0") + chunk(b"IDAT", b"")
    jpeg = bytearray(encoded(RGB, "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 2] = b"\0\0"
    for data in (empty, bytes(jpeg)):
        assert error_of(data).reason == "undecodable"


def test_pillow_decodes_every_stored_image(tmp_path):
    jpeg = encoded(RGB, "JPEG")
    odd = [b"\xff\xe0\0\7JFIF\0", b"\xff\xed\0\4ab, and more than the length says"]
    for data in [*FIRST_FRAME.values(), *(jpeg[:2] + segment + jpeg[2:] for segment in odd)]:
        with Image.open(io.BytesIO(store_image(data, RULES).jpeg)) as image:
            image.load()


def test_a_png_without_the_palette_that_its_pixels_need_is_named():
    data = encoded(RGB.quantize(16), "PNG")
    start = data.index(b"PLTE") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4])
    assert error_of(data[:start] + data[end:]).detail == "the PNG's palette is missing"
