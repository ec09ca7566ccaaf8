"""Which image formats are read, which are named, and what is no image."""

import gzip
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from dataprep.images import store_image
from tests.dataprep.small_images import PNG, RULES, chunk, encoded, error_of, gradient, shown


def iso_file(*brands: bytes) -> bytes:
    content = b"ftyp" + brands[0] + bytes(4) + b"".join(brands)
    return struct.pack(">I", len(content) + 4) + content + bytes(50)


def bmp_with(bits: int, compression: int) -> bytes:
    data = encoded(gradient(), "BMP")
    return data[:28] + struct.pack("<HI", bits, compression) + data[34:]


def jpeg_of_kind(marker: int, depth: int = 8) -> bytes:
    data = encoded(gradient(), "JPEG")
    at = data.index(b"\xff\xc0")
    return (
        data[: at + 1] + bytes([marker]) + data[at + 2 : at + 4] + bytes([depth]) + data[at + 5 :]
    )


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (iso_file(b"heic"), "HEIC"),
        (iso_file(b"heix", b"mif1"), "HEIC"),
        (iso_file(b"mif1", b"heic"), "HEIC"),
        (iso_file(b"mif1", b"miaf"), "HEIF"),
        (iso_file(b"crx "), "CR3"),
        (encoded(gradient(), "JPEG2000"), "JPEG 2000"),
        (encoded(gradient(), "JPEG2000", no_jp2=True), "JPEG 2000"),
        (b"\xff\x0a" + bytes(50), "JPEG XL"),
        (b"\x00\x00\x00\x0cJXL \r\n\x87\n" + bytes(50), "JPEG XL"),
        (encoded(gradient(), "ICO"), "ICO"),
        (encoded(gradient(), "ICNS"), "ICNS"),
        (encoded(gradient(), "PPM"), "Netpbm"),
        (encoded(Image.fromarray(gradient()).convert("1"), "PPM"), "Netpbm"),
        (encoded(gradient(), "DDS"), "DDS"),
        (encoded(gradient(), "TGA"), "TGA"),
        (encoded(gradient(), "TGA", compression="tga_rle"), "TGA"),
        (encoded(Image.fromarray(gradient()).quantize(9), "TGA"), "TGA"),
        (b"\0\0\2\0\1\0\x20\x20\0\0" + bytes(50), "CUR"),
        (encoded(gradient(), "PCX"), "PCX"),
        (encoded(gradient(), "SGI"), "SGI"),
        (encoded(gradient(), "EPS"), "EPS"),
        (encoded(Image.fromarray(gradient()).convert("1"), "XBM"), "XBM"),
        (b"/* XPM */\nstatic char * x[] = {", "XPM"),
        ('<svg xmlns="http://www.w3.org/2000/svg"/>'.encode("utf-16"), "SVG"),
        (encoded(gradient(), "QOI"), "QOI"),
        (bytes(cv2.imencode(".hdr", np.ones((64, 64, 3), np.float32))[1]), "Radiance HDR"),
        (b"8BPS\0\1" + bytes(50), "Photoshop"),
        (b"v/1\x01" + bytes(50), "OpenEXR"),
        (b'<svg xmlns="http://www.w3.org/2000/svg" width="9"/>', "SVG"),
        (b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- x -->\n<!DOCTYPE svg PUBLIC "a">\n<svg>', "SVG"),
        (gzip.compress(b"<svg/>", mtime=0), "SVG"),
        (encoded(np.ones((64, 64), np.float32), "TIFF"), "32 bits"),
        (bytes(cv2.imencode(".tiff", np.ones((64, 64, 3), np.float32))[1]), "TIFF"),
        (bmp_with(0, 5), "BMP"),  # a PNG inside, as in icons
        (bmp_with(32, 3), "BMP"),
        (jpeg_of_kind(0xC1, depth=12), "12 bits"),
        (jpeg_of_kind(0xC3), "lossless JPEG"),
        (jpeg_of_kind(0xF7), "JPEG-LS"),
        (PNG + chunk(b"CgBI", bytes(4)) + encoded(gradient(), "PNG")[8:], "CgBI"),
    ],
)
def test_a_format_that_is_not_decoded_is_named(data, name):
    error = error_of(data)
    assert error.reason == "unsupported_format" and name in error.detail


@pytest.mark.parametrize(
    "data",
    [
        b"<html><body><svg></svg></body></html>",
        b"<!DOCTYPE html><svg>",
        gzip.compress(b"<html>", mtime=0),
        b"RIFF\x00\x00\x00\x00WAVEfmt ",
        b"abcdefghWEBP" + bytes(50),
        b"BMW is a maker of cars. " * 9,
        b"GIF8 is not a version",
        b"P6 is the name of a processor",
        iso_file(b"isom", b"mp42"),
        b"%PDF-1.7",
        bytes(100),
    ],
)
def test_what_is_no_image_is_not_taken_for_one(data):
    assert error_of(data).reason == "not_an_image"


@pytest.mark.parametrize("major", [b"mif1", b"msf1", b"miaf", b"avis"])
def test_an_avif_is_decoded_by_its_compatible_brands_too(major):
    data = encoded(gradient(), "AVIF", quality=95)
    assert np.abs(shown(data[:8] + major + data[12:]) - gradient()).mean() < 6


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF"])
def test_gzip_around_an_image_is_unpacked(form):
    data = encoded(gradient(), form)
    packed = gzip.compress(data)
    members = gzip.compress(data[:300]) + gzip.compress(data[300:])  # as `cat` joins them
    for wrapped in (packed, packed[:-8], packed + bytes(100), members, gzip.compress(packed)):
        assert np.array_equal(shown(wrapped), shown(data))
    assert error_of(packed[: len(packed) // 2]).reason == "undecodable"
    assert error_of(b"\x1f\x8b" + bytes(50)).reason == "undecodable"


def test_a_small_gzip_file_cannot_fill_the_memory():
    bomb = gzip.compress(encoded(gradient(), "BMP") + bytes(200_000_000))
    for data in (bomb, gzip.compress(bomb), gzip.compress(bytes(70_000_000)) * 2):
        error = error_of(data)
        assert error.reason == "undecodable" and "unpacks to more" in error.detail


def test_avif_is_decoded_and_gzip_keeps_the_bytes_of_a_small_jpeg():
    assert np.abs(shown(encoded(gradient(), "AVIF", quality=95)) - gradient()).mean() < 6
    jpeg = encoded(gradient(), "JPEG")
    stored = store_image(gzip.compress(jpeg), RULES)
    assert stored.jpeg == jpeg and stored.original_bytes != len(jpeg)
