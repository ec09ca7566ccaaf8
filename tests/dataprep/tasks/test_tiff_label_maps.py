"""Label maps in TIFF: numbers are those that the file stores, and a file of several is refused."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from dataprep.row_errors import RowError
from dataprep.tasks.label_classes import LabelClasses
from dataprep.tasks.label_maps import read_label_map

HEIGHT, WIDTH = 5, 13
CLASSES = LabelClasses(tuple("abcd"), {0: 0, 1: 1, 2: 2, 3: 3})
VALUES = np.random.default_rng(0).integers(0, 4, (HEIGHT, WIDTH)).astype(np.uint8)


def tiff(values: np.ndarray, bits: int, colors: int) -> bytes:
    """Write gray as TIFF 6.0 describes it (section 4); colors 0 shows the value 0 as white."""
    if bits == 16:
        pixels = values.astype("<u2").tobytes()
    else:
        each = np.unpackbits(values[..., None], axis=2)[..., -bits:]
        pixels = np.packbits(each.reshape(len(values), -1), axis=1).tobytes()
    entries = {256: WIDTH, 257: HEIGHT, 258: bits, 259: 1, 262: colors, 277: 1, 278: HEIGHT}
    entries |= {273: 10 + 12 * 9 + 4, 279: len(pixels)}
    tags = [struct.pack("<HHII", tag, 4, 1, entries[tag]) for tag in sorted(entries)]
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(tags) + bytes(4) + pixels


@pytest.mark.parametrize("colors", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_values_are_those_that_a_tiff_stores(bits, colors):
    values = VALUES if bits > 1 else VALUES % 2
    found = read_label_map(tiff(values, bits, colors), CLASSES, (WIDTH, HEIGHT))
    assert (found == values).all()


def pages(form: str, *pages: Image.Image) -> bytes:
    file = io.BytesIO()
    pages[0].save(file, form, save_all=True, append_images=pages[1:])
    return file.getvalue()


@pytest.mark.parametrize("form", ["TIFF", "GIF"])
def test_a_file_of_several_label_maps_is_refused(form):
    maps = [Image.fromarray(VALUES), Image.fromarray(3 - VALUES)]
    assert (read_label_map(pages(form, maps[0]), CLASSES, (WIDTH, HEIGHT)) == VALUES).all()
    with pytest.raises(RowError, match=r"2 (pages|frames); a label map is a single one"):
        read_label_map(pages(form, *maps), CLASSES, (WIDTH, HEIGHT))


def test_a_smaller_page_of_a_tiff_is_a_preview():
    whole = Image.fromarray(VALUES)
    data = pages("TIFF", whole, whole.resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.NEAREST))
    assert (read_label_map(data, CLASSES, (WIDTH, HEIGHT)) == VALUES).all()
