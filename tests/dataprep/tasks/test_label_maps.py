"""Label maps in every kind of file against what Pillow wrote, classes, folders, and rejects."""

import io
import struct
import unicodedata
import zlib

import numpy as np
import pytest
from PIL import Image

from dataprep.row_errors import RowError
from dataprep.sources.annotations import AnnotationError
from dataprep.sources.lines import ListError
from dataprep.tasks.label_classes import (
    IGNORED,
    LabelClasses,
    read_ade20k_classes,
    read_label_classes,
)
from dataprep.tasks.label_folders import count_label_folders, read_label_folders
from dataprep.tasks.label_maps import read_label_map

WIDTH, HEIGHT = 7, 5
SIZE = (WIDTH, HEIGHT)
VALUES = np.random.default_rng(0).integers(0, 4, (HEIGHT, WIDTH)).astype(np.uint8)
ADE = LabelClasses(("wall", "sky", "car"), {0: IGNORED, 1: 0, 2: 1, 3: 2})
COLORS = [(0, 0, 0), (128, 64, 128), (70, 70, 70), (0, 0, 142)]
BY_COLOR = LabelClasses(
    ("road", "building", "car"), colors=dict(zip(COLORS, (IGNORED, 0, 1, 2), strict=True))
)
EXPECTED = np.array([IGNORED, 0, 1, 2], np.uint8)[VALUES]


def file_of(image: Image.Image, form: str = "PNG", **options) -> bytes:
    data = io.BytesIO()
    image.save(data, form, **options)
    return data.getvalue()


def with_palette(values: np.ndarray = VALUES) -> Image.Image:
    image = Image.fromarray(values).convert("P")
    image.putdata(values.ravel().tolist())
    image.putpalette([channel for color in COLORS for channel in color] + [9] * (768 - 12))
    return image


def gray_png(values: np.ndarray, bits: int) -> bytes:
    """A PNG of gray values of a few bits, written by hand: Pillow has no such mode."""
    rows = []
    for row in values:
        text = "".join(f"{value:0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        rows.append(b"\0" + bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8)))

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"".join(rows)))
        + chunk(b"IEND", b"")
    )  # fmt: skip


@pytest.mark.parametrize(
    "data",
    [
        file_of(Image.fromarray(VALUES)),
        file_of(Image.fromarray(VALUES), "BMP"),
        file_of(Image.fromarray(VALUES), "TIFF"),
        file_of(Image.fromarray(VALUES), "TIFF", compression="tiff_lzw"),
        file_of(Image.fromarray(VALUES.astype(np.uint16))),
        file_of(Image.fromarray(VALUES.astype(np.uint16)), "TIFF"),
        file_of(with_palette()),
        file_of(with_palette(), bits=2),
        file_of(with_palette(), "BMP"),
        file_of(with_palette(), "TIFF"),
        gray_png(VALUES, 2),
        gray_png(VALUES, 4),
        gray_png(VALUES, 8),
    ],
    ids=lambda data: f"{data[:4]!r}-{len(data)}",
)
def test_values_are_read_as_stored_from_every_kind_of_file(data):
    assert read_label_map(data, ADE, SIZE).tolist() == EXPECTED.tolist()


def test_values_of_one_bit_and_of_sixteen():
    bits = VALUES & 1
    two = LabelClasses(("no", "yes"), {0: 0, 1: 1})
    assert read_label_map(gray_png(bits, 1), two, SIZE).tolist() == bits.tolist()
    deep = LabelClasses(("a", "b", "c", "d"), {0: 3, 1000: 2, 2000: 1, 3000: 0})
    data = file_of(Image.fromarray(VALUES.astype(np.uint16) * 1000))
    assert read_label_map(data, deep, SIZE).tolist() == (3 - VALUES).tolist()


def seen(mode: str) -> Image.Image:
    return with_palette().convert(mode)


@pytest.mark.parametrize(
    "data",
    [
        file_of(seen("RGB")),
        file_of(seen("RGB"), "BMP"),
        file_of(seen("RGB"), "TIFF"),
        file_of(seen("RGBA")),
        file_of(with_palette()),
        file_of(with_palette(), "GIF"),
    ],
    ids=lambda data: f"{data[:4]!r}-{len(data)}",
)
def test_colors_are_read_as_seen_from_every_kind_of_file(data):
    assert read_label_map(data, BY_COLOR, SIZE).tolist() == EXPECTED.tolist()


def test_gray_can_be_colors_too():
    gray = LabelClasses(("a", "b"), colors={(0, 0, 0): 0, (200, 200, 200): 1})
    data = file_of(Image.fromarray((VALUES & 1) * np.uint8(200)))
    assert read_label_map(data, gray, SIZE).tolist() == (VALUES & 1).tolist()


def transparent() -> Image.Image:
    image = seen("RGBA")
    image.putpixel((3, 2), (0, 0, 0, 128))
    return image


WRONG = VALUES.copy()
WRONG[3, 2] = WRONG[4, 6] = 177
WHOLE = file_of(Image.fromarray(VALUES))


@pytest.mark.parametrize(
    ("data", "classes", "reason", "detail"),
    [
        (b"", ADE, "bad_mask", "begins with b''"),
        (b"<html>", ADE, "bad_mask", "HTML|begins with"),
        (WHOLE[:-30], ADE, "bad_mask", "missing|truncated"),
        (WHOLE[:40], ADE, "bad_mask", ""),
        (file_of(seen("RGB"), "JPEG"), BY_COLOR, "bad_mask", "a JPEG does not keep every value"),
        (file_of(seen("RGB"), "WEBP", lossless=True), BY_COLOR, "bad_mask", "a WEBP does not"),
        (file_of(seen("RGB")), ADE, "bad_mask", "the mask is RGB, and classes have values"),
        (file_of(transparent()), BY_COLOR, "bad_mask", "some pixels are transparent"),
        (
            file_of(Image.fromarray(VALUES.astype(np.uint16))), BY_COLOR, "bad_mask",
            "gray of 16 bits, and classes have colors",
        ),
        (
            file_of(Image.fromarray(VALUES[:, 1:])), ADE, "mask_size",
            "the mask has 6x5 pixels, its image 7x5",
        ),
        (file_of(Image.fromarray(VALUES.T)), ADE, "mask_size", "has 5x7 pixels, its image 7x5"),
        (
            file_of(Image.fromarray(WRONG)), ADE, "unknown_label",
            "no class has the value 177 in row 3, column 2 of the mask; 2 pixels have no class",
        ),
        (
            file_of(with_palette(WRONG)), BY_COLOR, "unknown_label",
            r"no class has the color \[9, 9, 9\] in row 3, column 2",
        ),
        (file_of(Image.fromarray(0 * VALUES)), ADE, "empty_mask", "no pixel of the mask has a cl"),
    ],
)  # fmt: skip
def test_a_mask_that_cannot_be_used_says_why(data, classes, reason, detail):
    with pytest.raises(RowError, match=detail) as caught:
        read_label_map(data, classes, SIZE)
    assert caught.value.reason == reason


def test_damage_anywhere_in_a_file_is_a_reject_or_harmless():
    rng = np.random.default_rng(1)
    for data in (WHOLE, file_of(with_palette(), "GIF"), file_of(seen("RGB"), "TIFF")):
        classes = BY_COLOR if data is not WHOLE else ADE
        for _ in range(150):
            broken = bytearray(data)
            for place in rng.integers(0, len(data), 3):
                broken[place] = rng.integers(256)
            try:
                found = read_label_map(
                    bytes(broken[: rng.integers(1, len(data) + 1)]), classes, SIZE
                )
            except RowError as error:
                assert error.detail
            else:
                assert found.shape == (HEIGHT, WIDTH)


ADE_FILE = (
    "Idx\tRatio\tTrain\tVal\tName\n1\t0.1576\t11664\t1172\twall\n"
    "2\t0.1072\t6046\t612\tbuilding, edifice\n3\t0.0878\t8265\t796\tsky\n"
)


@pytest.mark.parametrize("text", [ADE_FILE, ADE_FILE.replace("\t", "   ") + "\n"])
def test_the_list_of_ade20k_names_its_classes_from_the_value_1_on(tmp_path, text):
    path = tmp_path / "objectInfo150.txt"
    path.write_text(text)
    found = read_ade20k_classes(path)
    assert found.names == ("wall", "building, edifice", "sky")
    assert found.values == {0: IGNORED, 1: 0, 2: 1, 3: 2} and not found.colors


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,r,g,b\nroad,1,2,3\n", "line 1: expected the columns Idx … Name"),
        (ADE_FILE.replace("\n2", "\n3"), "line 3: expected the class 2 with 5 columns"),
        (ADE_FILE.replace("\twall", ""), "line 2: expected the class 1"),
        (ADE_FILE.replace("sky", "wall"), "several classes are named 'wall'"),
        (ADE_FILE[:24], "0 classes"),
    ],
)
def test_another_file_than_ade20ks_list_is_refused(tmp_path, text, message):
    path = tmp_path / "objectInfo150.txt"
    path.write_text(text)
    with pytest.raises(AnnotationError, match=message):
        read_ade20k_classes(path)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "class_dict.csv", "name,r,g,b\nroad,128,64,128\n,0,0,0\n car ,0, 0,142\n",
            LabelClasses(("road", "car"), colors={COLORS[1]: 0, COLORS[0]: 255, COLORS[3]: 1}),
        ),
        (
            "classes.csv", 'name,id\n"sky, blue",x\nsea,y\n',
            LabelClasses(("sky, blue", "sea"), {255: 255, 0: 0, 1: 1}),
        ),
        (
            "classes.tsv", "value\tname\n7\tsky\n0\t\n65535\tsea\n",
            LabelClasses(("sky", "sea"), {255: 255, 7: 0, 0: 255, 65535: 1}),
        ),
        ("classes.csv", "name,value\nsky,255\n", LabelClasses(("sky",), {255: 0})),
    ],
)  # fmt: skip
def test_own_classes_have_colors_values_or_neither(tmp_path, name, text, expected):
    (tmp_path / name).write_text(text)
    assert read_label_classes(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("label\nsky\n", ListError, "no column name; it has label"),
        ("name,r,g\nsky,1,2\n", ListError, "no column b"),
        ("name,value\nsky,-1\n", AnnotationError, "line 2: value = '-1', expected 0 to 65535"),
        ("name,value\nsky,1.0\n", AnnotationError, "value = '1.0', expected 0 to 65535"),
        ("name,r,g,b\nsky,1,2,256\n", AnnotationError, "line 2: b = '256', expected 0 to 255"),
        ("name,value\nsky,1\nsea,1\n", AnnotationError, "line 3: 1 stands for another class"),
        ("name\nsky\nsky\n", AnnotationError, "several classes are named 'sky'"),
        ("name,value\nsky\n", AnnotationError, "line 2: 1 fields, the header has 2"),
        ("name,value\n,1\n", AnnotationError, "0 classes; give 1 to 255"),
        ("name\n" + "".join(f"c{i}\n" for i in range(256)), AnnotationError, "256 classes"),
    ],
)
def test_own_classes_that_cannot_be_used_are_refused(tmp_path, text, kind, message):
    path = tmp_path / "classes.csv"
    path.write_text(text)
    with pytest.raises(kind, match=message):
        read_label_classes(path)


def folder_of(path, names):
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(b"x")
    return path


def test_maps_belong_to_the_images_of_their_paths(tmp_path):
    images = folder_of(
        tmp_path / "images",
        ["a.jpg", "b/a.png", "b/c.jpeg", "d.1.jpg", "d.2.jpg", "e.jpg", "e.png"],
    )
    masks = folder_of(
        tmp_path / "masks", ["a.png", "b/a.png", "a.tif", "d.1.png", "d.2.png", "e.png", "z/q.png"]
    )
    found = list(read_label_folders(images, masks))
    good = {each.id: (each.images, each.mask) for each in found if not each.reason}
    assert good == {
        "a": (("a.jpg",), "a.png"),
        "b/a": (("b/a.png",), "b/a.png"),
        "d.1": (("d.1.jpg",), "d.1.png"),
        "d.2": (("d.2.jpg",), "d.2.png"),
        "e": (("e.jpg",), "e.png"),
    }
    rejects = {each.id: (each.reason, each.detail) for each in found if each.reason}
    assert rejects == {
        "b/c": ("no_labels", "images/b/c.jpeg: masks holds no mask b/c.*"),
        "e+2": ("repeated_id", "images/e.png: e.jpg has the same name up to the ending"),
        "mask-a.tif": ("repeated_id", "masks/a.tif: a.png is the mask of the same image"),
        "mask-z/q.png": ("missing_file", "masks/z/q.png: no image has this name"),
    }


def test_a_map_belongs_to_the_image_of_its_name_in_either_form_of_unicode(tmp_path):
    names = [unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD")]
    images = folder_of(tmp_path / "images", [f"{names[0]}.jpg", f"a/{names[1]}.jpg"])
    masks = folder_of(tmp_path / "masks", [f"{names[1]}.png", f"a/{names[0]}.png"])
    assert count_label_folders(images, masks) == 2
    found = {each.id: (each.reason, each.mask) for each in read_label_folders(images, masks)}
    expected = {names[0]: ("", f"{names[1]}.png"), f"a/{names[1]}": ("", f"a/{names[0]}.png")}
    assert found == expected


def test_label_maps_of_other_names_alone_are_told_without_reading_them(tmp_path):
    images = folder_of(tmp_path / "images", ["a/1.jpg", "a/2.jpg", "notes.txt"])
    assert count_label_folders(images, None) == 3
    assert count_label_folders(images, folder_of(tmp_path / "some", ["a/2.png", "x.png"])) == 3
    masks = folder_of(tmp_path / "masks", ["a/1_gt.png", "1.png"])
    with pytest.raises(ListError, match=r"first image is a/1\.jpg, the first label map 1\.png"):
        count_label_folders(images, masks)


def test_a_split_without_labels_has_images_alone(tmp_path):
    images = folder_of(tmp_path / "images", ["a.jpg", "b.jpg"])
    found = list(read_label_folders(images, None))
    assert [(each.id, each.mask, each.reason) for each in found] == [("a", "", ""), ("b", "", "")]


def test_an_empty_folder_of_masks_is_refused(tmp_path):
    images = folder_of(tmp_path / "images", ["a.jpg"])
    (tmp_path / "masks").mkdir()
    with pytest.raises(ListError, match="masks: the folder holds no files; correct"):
        list(read_label_folders(images, tmp_path / "masks"))
