"""Image files of every kind that is read, damaged at random; run as a program, it tries many.

``python -m tests.dataprep.image_mutations NUMBER SEED PROGRESS`` stores that many damaged files
with limited memory. It ends with an error at the first one that is neither stored whole nor
rejected with a known reason. The file PROGRESS holds the number of the current one, for a crash.
"""

import gzip
import io
import os
import re
import resource
import signal
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from PIL import Image

from dataprep import image_errors
from dataprep.images import ImageError, ImageRules, StoredImage, store_image
from tests.dataprep.small_images import chunk, encoded

RULES: Final = ImageRules(short_side=64, jpeg_quality=95, min_side=16, max_pixels=1_000_000)
REASONS: Final = {
    value for name, value in vars(image_errors).items() if name.isupper() and isinstance(value, str)
}
EDITS: Final = ("flip", "number", "cut", "remove", "duplicate", "insert", "zero")
_NUMBERS: Final = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 70_000, 2)
_OUT_OF_MEMORY: Final = re.compile("memory|alloc", re.IGNORECASE)
_MEMORY_BYTES: Final = 1 << 30
_MAX_GROWTH_KIB: Final = 256 << 10
_HANG_S: Final = 60


class Edit(NamedTuple):
    """One damage."""

    kind: str
    at: float
    "Position, as a fraction of the file."
    size: int
    "Number of bytes."
    value: int


def draw(seed: int) -> tuple[str, list[Edit], bool]:
    """Draw a file's name, its damage, and whether the checksums of a PNG are made right again."""
    rng = np.random.default_rng(seed)
    names = sorted(SEEDS)
    edits = [
        Edit(
            str(rng.choice(EDITS)),
            float(rng.random() ** rng.choice([1, 1, 4])),  # headers are hit more often
            int(2 ** rng.integers(0, 9)),
            int(rng.integers(0, 1 << 32)),
        )
        for _ in range(rng.integers(1, 5))
    ]
    return names[rng.integers(len(names))], edits, bool(rng.random() < 0.7)


def damaged(data: bytes, edits: Sequence[Edit], repair: bool) -> bytes:
    """Return a file with some damage."""
    changed = bytearray(data)
    for kind, fraction, size, value in edits:
        at = int(fraction * len(changed))
        part = changed[at : at + size]
        if kind == "flip" and part:
            changed[at] ^= value % 255 + 1
        elif kind == "number":
            order, width = ("big", "little")[value & 1], (2, 4)[value >> 1 & 1]
            number = _NUMBERS[value % len(_NUMBERS)] % (1 << 8 * width)
            changed[at : at + width] = number.to_bytes(width, order)
        elif kind == "cut":
            del changed[at:]
        elif kind == "remove":
            del changed[at : at + size]
        elif kind == "duplicate":
            changed[at:at] = part
        elif kind == "insert":
            changed[at:at] = np.random.default_rng(value).bytes(size)
        elif kind == "zero":
            changed[at : at + size] = bytes(len(part))
    return _checksums_repaired(bytes(changed)) if repair else bytes(changed)


def check(data: bytes) -> str:
    """Store a file; return "stored" or the reason why not.

    Raises:
        AssertionError: the stored JPEG is not whole, or the reject is not one of the known ones.
    """
    try:
        stored = store_image(data, RULES)
    except ImageError as error:
        assert error.reason in REASONS, error
        assert error.detail, error
        assert not re.search("at 0x[0-9a-f]+", error.detail), error
        assert not _OUT_OF_MEMORY.search(error.detail), error
        return error.reason
    assert isinstance(stored, StoredImage)
    with Image.open(io.BytesIO(stored.jpeg)) as image:  # Pillow refuses a truncated JPEG
        image.load()
        assert (image.format, image.size) == ("JPEG", (stored.width, stored.height))
    original = stored.original_width, stored.original_height
    assert min(original) >= RULES.min_side
    assert original[0] * original[1] <= RULES.max_pixels
    return "stored"


def png(
    rows: np.ndarray, size: tuple[int, int], depth: int, color_type: int, extra: bytes = b""
) -> bytes:
    """Return a PNG of packed rows (height, bytes), interlaced if they are a list of passes."""
    passes = rows if isinstance(rows, list) else [rows]
    raw = b"".join(b"\0" + row.tobytes() for part in passes for row in part)
    header = struct.pack(">IIBBBBB", *size, depth, color_type, 0, 0, len(passes) > 1)
    chunks = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(raw))
    return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IEND", b"")


ADAM7: Final = (
    *((0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4)),
    *((0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2)),
)
"First column, step, first row, step of each pass (PNG specification, section 8.2)."


def interlaced_png(pixels: np.ndarray) -> bytes:
    """Return an interlaced PNG of RGB or RGBA pixels of 8 bits."""
    height, width, channels = pixels.shape
    passes = [pixels[y::dy, x::dx].reshape(-(-(height - y) // dy), -1) for x, dx, y, dy in ADAM7]
    return png(passes, (width, height), 8, {3: 2, 4: 6}[channels])


def restart_jpeg(pixels: np.ndarray) -> bytes:
    """Return a JPEG with restart markers."""
    return bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_RST_INTERVAL, 2])[1])


def _checksums_repaired(data: bytes) -> bytes:
    if not data.startswith(b"\x89PNG"):
        return data
    changed, at = bytearray(data), 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4])
        if end + 4 > len(data):
            break
        changed[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4)
        at = end + 4
    return bytes(changed)


def _seeds() -> dict[str, bytes]:
    y, x = np.mgrid[:80, :112]
    noise = np.random.default_rng(0).integers(0, 40, (80, 112, 3))
    pixels = (np.stack([x * 2, y * 2.6, x + y], -1) + noise).clip(0, 255).astype(np.uint8)
    rgb = Image.fromarray(pixels)
    rgba = rgb.copy()
    rgba.putalpha(Image.linear_gradient("L").resize(rgb.size))
    deep = Image.fromarray((x * 500).astype(np.uint16))
    exif = Image.Exif()
    exif[274], exif[315] = 6, "someone"
    both: dict[str, Any] = {"save_all": True, "append_images": [rgb.rotate(180), rgb]}
    palette = rgb.quantize(32)
    writers: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "jpeg": (rgb, "JPEG", {"exif": exif}),
        "progressive jpeg": (rgb, "JPEG", {"progressive": True}),
        "gray jpeg": (rgb.convert("L"), "JPEG", {}),
        "cmyk jpeg": (rgb.convert("CMYK"), "JPEG", {"progressive": True}),
        "png": (rgb, "PNG", {"exif": exif}),
        "rgba png": (rgba, "PNG", {}),
        "gray alpha png": (rgba.convert("LA"), "PNG", {}),
        "palette png": (palette, "PNG", {"transparency": bytes(range(0, 256, 8))}),
        "1-bit png": (rgb.convert("1"), "PNG", {"transparency": 0}),
        "16-bit png": (deep, "PNG", {}),
        "animated png": (rgb, "PNG", both),
        "gif": (palette, "GIF", {"transparency": 3}),
        "animated gif": (rgb, "GIF", both),
        "webp": (rgb, "WEBP", {"exif": exif}),
        "alpha webp": (rgba, "WEBP", {}),
        "lossless webp": (rgba, "WEBP", {"lossless": True}),
        "animated webp": (rgb, "WEBP", both),
        "bmp": (rgb, "BMP", {}),
        "palette bmp": (palette, "BMP", {}),
        "rgba bmp": (rgba, "BMP", {}),
        "tiff": (rgb, "TIFF", {"exif": exif}),
        "lzw tiff": (rgba, "TIFF", {"compression": "tiff_lzw"}),
        "deflate tiff": (rgb.convert("CMYK"), "TIFF", {"compression": "tiff_adobe_deflate"}),
        "jpeg tiff": (rgb, "TIFF", {"compression": "jpeg"}),
        "fax tiff": (rgb.convert("1"), "TIFF", {"compression": "group4"}),
        "16-bit tiff": (deep, "TIFF", {}),
        "avif": (rgb, "AVIF", {"exif": exif}),
        "alpha avif": (rgba, "AVIF", {}),
        "animated avif": (rgb, "AVIF", both),
    }
    files = {name: encoded(image, form, **more) for name, (image, form, more) in writers.items()}
    files["restart jpeg"] = restart_jpeg(pixels)
    files["gzipped jpeg"] = gzip.compress(files["jpeg"])
    files["interlaced png"] = interlaced_png(pixels)
    transparent = chunk(b"tRNS", bytes(6))
    deep_rows = (pixels.reshape(80, -1).astype(">u2") * 257).astype(">u2")
    files["16-bit rgb png"] = png(deep_rows, (112, 80), 16, 2, transparent)
    return files


SEEDS: Final = _seeds()
"Undamaged files by name."


def _limit_memory() -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + _MEMORY_BYTES,) * 2)


def _peak_kib() -> int:
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


def main(number: int, first: int, progress: Path) -> None:
    """Try ``number`` damaged files and print how they ended."""
    cv2.setNumThreads(1)
    for data in SEEDS.values():  # whatever is loaded or started once
        check(data)
    _limit_memory()
    before, ends = _peak_kib(), Counter[str]()
    signal.signal(signal.SIGALRM, _hang)
    with progress.open("w+b", buffering=0) as file:
        for seed in range(first, first + number):
            os.pwrite(file.fileno(), str(seed).encode(), 0)
            name, edits, repair = draw(seed)
            signal.alarm(_HANG_S)
            ends[check(damaged(SEEDS[name], edits, repair))] += 1
            peak = _peak_kib()
            assert peak - before < _MAX_GROWTH_KIB, f"{peak - before} KiB more after {seed}"
    signal.alarm(0)
    sys.stdout.write(f"{dict(ends)}, {(_peak_kib() - before) >> 10} MiB more\n")


def _hang(*_: object) -> None:
    raise TimeoutError(f"one file takes more than {_HANG_S} s")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
