"""Image formats, recognized by the first bytes of a file; gzip around an image is unpacked."""

import codecs
import re
import zlib
from typing import Final

from dataprep.image_errors import NOT_AN_IMAGE, UNDECODABLE, UNSUPPORTED_FORMAT, ImageError
from dataprep.jpeg_segments import SOI

_DECODED: Final = (
    (0, SOI, "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
)
"Formats that are decoded: offset and value of the signature, name."
_NOT_DECODED: Final = (
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"II\xbc\x01", "JPEG XR"),
    (0, b"\0\0\x01\0", "ICO"),
    (0, b"\x01\xda\x00", "SGI"),
    (0, b"\x01\xda\x01", "SGI"),
    (0, b"\x59\xa6\x6a\x95", "Sun raster"),
    (0, b"%!PS-Adobe", "EPS"),
    (0, b"/* XPM */", "XPM"),
    (0, b"icns", "ICNS"),
    (0, b"8BPS", "Photoshop"),
    (0, b"gimp xcf", "GIMP"),
    (0, b"v/1\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"#?RGBE", "Radiance HDR"),
    (0, b"DDS ", "DDS"),
    (0, b"qoif", "QOI"),
    (0, b"FLIF", "FLIF"),
    (0, b"BPG\xfb", "BPG"),
    (0, b"farbfeld", "farbfeld"),
    (0, b"\x8aMNG\r\n\x1a\n", "MNG"),
    (0, b"\x8bJNG\r\n\x1a\n", "JNG"),
    (0, b"AT&TFORM", "DjVu"),
    (0, b"SIMPLE  =", "FITS"),
    (128, b"DICM", "DICOM"),
    (0, b"\xd7\xcd\xc6\x9a", "WMF"),
    (40, b" EMF", "EMF"),
    (0, b"FUJIFILMCCD-RAW", "RAF"),
    (0, b"IIRO", "ORF"),
    (0, b"IIU\0", "RW2"),
)
"Formats that are recognized but not decoded."
_ISO_BRANDS: Final = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm"), "HEIC"),
    b"crx ": "CR3",
    **dict.fromkeys((b"mif1", b"mif2", b"msf1", b"miaf"), "HEIF"),
}
"Brands of ISO media files that hold images (ISO 23008-12); the general ones come last."
_BMP_HEADERS: Final = (12, 16, 40, 52, 56, 64, 108, 124)
"Sizes of a bitmap's second header, in all versions of the format."
_WEAK_SIGNATURES: Final = (
    (re.compile(rb"\0\0\x02\0[^\0].{4}\0", re.DOTALL), "CUR"),
    (re.compile(rb".\0[\x02\x03\x0a\x0b]\0{5}.{8}[\x08\x0f\x10\x18\x20]", re.DOTALL), "TGA"),
    (re.compile(rb".\x01[\x01\x09].{4}[\x0f\x10\x18\x20].{8}[\x08\x10]", re.DOTALL), "TGA"),
    (re.compile(rb"\n[\0\x02-\x05]\x01[\x01\x02\x04\x08]"), "PCX"),
    (re.compile(rb"P[1-7][ \t\r\n][\s\d#]"), "Netpbm"),
    (re.compile(rb"\s*(/\*.*?\*/\s*)?#define[ \t]+\w*width[ \t]+\d", re.DOTALL), "XBM"),
)
"Formats that are not decoded and begin with fields of a header rather than with a signature."
_SVG: Final = re.compile(
    rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*|<!--.*?-->\s*|<!DOCTYPE\s+svg[^>]*>\s*)*<svg[\s>/]",
    re.DOTALL | re.IGNORECASE,
)
_HEAD_BYTES: Final = 4096
_GZIP: Final = b"\x1f\x8b"
_MAX_UNPACKED_BYTES: Final = 1 << 27
_MAX_LAYERS: Final = 3
"Largest number of times that an image is unpacked: by a site's program and again by its server."


def format_of(data: bytes) -> str:
    """Return the name of a file's format, one of those that are decoded.

    Raises:
        ImageError: the file is of another image format, which the message names, or no image.
    """
    if name := _signature(data, _DECODED):
        return name
    if data.startswith(b"RIFF") and data.startswith(b"WEBP", 8):
        return "WEBP"
    if data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    name = _signature(data, _NOT_DECODED) or _iso_format(data) or _format_of_head(data)
    if name == "AVIF":
        return name
    if name:
        raise ImageError(UNSUPPORTED_FORMAT, f"{name} is not decoded")
    raise ImageError(NOT_AN_IMAGE, f"begins with {data[:16]!r}")


def has_image_signature(data: bytes) -> bool:
    """Return whether bytes begin like an image, of a format that is decoded or not."""
    try:
        format_of(data)
    except ImageError as error:
        return error.reason == UNSUPPORTED_FORMAT
    return True


def unpacked(data: bytes) -> bytes:
    """Return the content of a gzip file, or the bytes themselves if they are not gzip.

    As ``gunzip`` does, the members of a file are joined, and what follows them is ignored. A
    truncated file is unpacked as far as it goes; the image's decoder judges what is there.

    Raises:
        ImageError: the file is damaged, or unpacks to too much.
    """
    for _ in range(_MAX_LAYERS):
        if data.startswith(_GZIP):
            data = _without_gzip(data)
    return data


def _without_gzip(data: bytes) -> bytes:
    parts, left = list[bytes](), _MAX_UNPACKED_BYTES
    while data.startswith(_GZIP):
        unzip = zlib.decompressobj(31)
        try:
            parts.append(unzip.decompress(data, left))
        except zlib.error as error:
            raise ImageError(UNDECODABLE, f"damaged gzip file: {error}") from None
        left -= len(parts[-1])
        if unzip.unconsumed_tail or left <= 0:
            limit = f"{_MAX_UNPACKED_BYTES >> 20} MiB"
            raise ImageError(UNDECODABLE, f"the gzip file unpacks to more than {limit}")
        data = unzip.unused_data
    return b"".join(parts)


def _signature(data: bytes, formats: tuple[tuple[int, bytes, str], ...]) -> str | None:
    return next((name for offset, magic, name in formats if data.startswith(magic, offset)), None)


def _iso_format(data: bytes) -> str | None:
    """Return the format of an ISO media file: by its major brand, else by a compatible one."""
    if data[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(data[:4]), _HEAD_BYTES)
    brands = {data[8:12], *(data[i : i + 4] for i in range(16, end, 4))}
    major = _ISO_BRANDS.get(data[8:12])
    if major not in (None, "HEIF"):
        return major
    return next((name for brand, name in _ISO_BRANDS.items() if brand in brands), None)


def _format_of_head(data: bytes) -> str | None:
    head = data[:_HEAD_BYTES]
    for pattern, name in _WEAK_SIGNATURES:
        if pattern.match(head):
            return name
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        head = head.decode("utf-16", "replace").encode()
    return "SVG" if _SVG.match(head) else None
