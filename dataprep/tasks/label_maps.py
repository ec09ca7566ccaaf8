"""Label maps: images whose pixels name a class, by a number or by a color.

A label map is an array (height, width) uint8 of class numbers, and ``IGNORED`` where a pixel
belongs to no class. Its file must keep every value: PNG, GIF, BMP or TIFF. A file of several maps,
such as one of each class, is refused.

| classes have | files | what names the class |
|---|---|---|
| values | gray of 1 to 16 bits, or a palette | the stored number, of a palette the entry's |
| colors | gray of 8 bits, a palette, RGB | the color that is seen |
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image
from PIL.TiffImagePlugin import TiffImageFile

from dataprep.image_errors import UNDECODABLE, UNSUPPORTED_FORMAT, ImageError
from dataprep.image_formats import format_of
from dataprep.pillow_decoding import opened
from dataprep.png_chunks import PngChunks, read_png
from dataprep.row_errors import RowError
from dataprep.tasks.example import UNKNOWN_LABEL
from dataprep.tasks.label_classes import IGNORED, NUM_VALUES, Color, LabelClasses
from dataprep.tasks.run_lengths import BAD_MASK, EMPTY_MASK, MASK_SIZE

LabelMap = NDArray[np.uint8]
"(height, width)."

_EXACT: Final = ("PNG", "GIF", "BMP", "TIFF")
_UNKNOWN: Final = -1
_GRAY: Final = 0
"PNG's color type of gray."
_SPREAD: Final = (2, 4)
"Bits of gray that Pillow spreads over 0-255; of 1 bit it leaves 0 and 1."
_TIFF_TYPE, _TIFF_BITS, _TIFF_COLORS = 254, 258, 262
_TIFF_SMALLER, _TIFF_TRANSPARENCY = 1, 4
"Bits of a page's type that tell that it is no map of its own."
_TIFF_WHITE_IS_0: Final = 0


def read_label_map(data: bytes, classes: LabelClasses, size: tuple[int, int]) -> LabelMap:
    """Return the label map in a file.

    Args:
        data: bytes of the file.
        classes: what its values or colors stand for.
        size: width and height of the image that the map belongs to.

    Raises:
        RowError: the file cannot be read, has another size, holds a value or color of no class, or
            no class at all.
    """
    by_color = bool(classes.colors)
    try:
        stored = _stored(data, size, by_color)
    except ImageError as error:
        raise RowError(BAD_MASK, error.detail) from None
    labels = _of_colors(stored, classes.colors) if by_color else _of_values(stored, classes.values)
    unknown = np.argwhere(labels == _UNKNOWN)
    if len(unknown):
        row, column = unknown[0].tolist()
        kind, found = "color" if by_color else "value", stored[row, column].tolist()
        raise RowError(
            UNKNOWN_LABEL,
            f"no class has the {kind} {found} in row {row}, column {column} of the mask; "
            f"{len(unknown)} pixels have no class",
        )
    if (labels == IGNORED).all():
        raise RowError(EMPTY_MASK, "no pixel of the mask has a class")
    return labels.astype(np.uint8)


def _stored(data: bytes, size: tuple[int, int], by_color: bool) -> NDArray[np.integer]:
    """Return values (height, width), or colors (height, width, 3).

    Raises:
        ImageError: the file is damaged, or does not hold values or colors.
        RowError: it has another size; its pixels are not decoded.
    """
    form, png = format_of(data), None
    if form not in _EXACT:
        raise ImageError(UNSUPPORTED_FORMAT, f"a {form} does not keep every value; give a PNG")
    if form == "PNG":
        png = read_png(data)
        data = png.data
        if png.damage:
            raise ImageError(UNDECODABLE, png.damage)
    with opened(data, form) as image:
        found = image.size
        pixels = _pixels(image, png, by_color) if found == size else None
        if pixels is not None and form in ("GIF", "TIFF"):
            _check_alone(image)
    if pixels is None:
        turned = ", which its EXIF orientation may turn" if found == size[::-1] else ""
        problem = f"the mask has {found[0]}x{found[1]} pixels, its image {size[0]}x{size[1]}"
        raise RowError(MASK_SIZE, problem + turned)
    return pixels


def _pixels(image: Image, png: PngChunks | None, by_color: bool) -> NDArray[np.integer]:
    image.load()
    if png and not png.is_complete():
        raise ImageError(UNDECODABLE, "part of the PNG's pixels is missing")
    is_deep = image.mode.startswith("I;16")
    if by_color:
        if is_deep:
            raise ImageError(UNSUPPORTED_FORMAT, "gray of 16 bits, and classes have colors")
        if "A" in image.getbands() and image.getchannel("A").getextrema()[0] != 255:
            raise ImageError(UNSUPPORTED_FORMAT, "some pixels are transparent")
        return np.asarray(image.convert("RGB"))
    if not is_deep and image.mode not in ("1", "L", "P"):
        raise ImageError(
            UNSUPPORTED_FORMAT, f"the mask is {image.mode}, and classes have values, not colors"
        )
    values = np.asarray(image).astype(np.uint16)
    is_gray, num_bits = image.mode == "L", 8
    if png:
        is_gray, num_bits = is_gray and png.color_type == _GRAY, png.bit_depth
    elif isinstance(image, TiffImageFile):
        num_bits = image.tag_v2.get(_TIFF_BITS, (1,))[0]
        # Pillow shows 0 as white here, by which it changes the stored numbers.
        if image.mode in ("1", "L") and image.tag_v2.get(_TIFF_COLORS) == _TIFF_WHITE_IS_0:
            values = (1 if image.mode == "1" else 255) - values
    if is_gray and num_bits in _SPREAD:
        values //= 255 // ((1 << num_bits) - 1)
    return values


def _check_alone(image: Image) -> None:
    """Check that no further frame or page of a GIF or TIFF is as large as the first one.

    Raises:
        ImageError: one is.
    """
    size, number = image.size, getattr(image, "n_frames", 1)
    if not isinstance(image, TiffImageFile):
        if number > 1:
            raise ImageError(UNSUPPORTED_FORMAT, f"{number} frames; a label map is a single one")
        return
    for page in range(1, number):
        image.seek(page)
        type_ = image.tag_v2.get(_TIFF_TYPE, 0)
        if image.size == size and not type_ & (_TIFF_SMALLER | _TIFF_TRANSPARENCY):
            raise ImageError(UNSUPPORTED_FORMAT, f"{number} pages; a label map is a single one")


def _of_values(values: NDArray[np.integer], classes: Mapping[int, int]) -> NDArray[np.int16]:
    table = np.full(NUM_VALUES, _UNKNOWN, np.int16)
    table[list(classes)] = list(classes.values())
    return table[values]


def _of_colors(colors: NDArray[np.integer], classes: Mapping[Color, int]) -> NDArray[np.int16]:
    factors = np.array([1 << 16, 1 << 8, 1])
    known = np.array(sorted((int(np.dot(color, factors)), c) for color, c in classes.items()))
    packed = colors.astype(np.int64) @ factors
    place = np.searchsorted(known[:, 0], packed).clip(max=len(known) - 1)
    found = np.where(known[place, 0] == packed, known[place, 1], _UNKNOWN)
    return found.astype(np.int16)
