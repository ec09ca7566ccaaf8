"""Decoding with Pillow: PNG, GIF, BMP, TIFF and AVIF, and the orientation in EXIF data.

Only the first frame is decoded, and damaged metadata is ignored.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from PIL import ExifTags
from PIL import Image as PillowImage
from PIL import ImageFile as PillowFile

from dataprep.compositing import Box, Pixels, join_strips, pillow_on_white
from dataprep.image_errors import UNDECODABLE, UNSUPPORTED_FORMAT, ImageError

# The caller compares the header's size with its rules; Pillow's own warning knows no rules.
PillowImage.MAX_IMAGE_PIXELS = None
# Pillow warns of damaged metadata, which is ignored.
warnings.filterwarnings("ignore", module=r"PIL\.")

_DEEP_MODES: Final = ("I", "F")
"Modes of 32 bits per channel."
_UNSUPPORTED: Final = re.compile("unsupported|not supported|unknown pixel mode", re.IGNORECASE)
"What Pillow says of a file that is whole, but of a kind that it does not read."
_XMP: Final = ("xmp", "XML:com.adobe.xmp")
"Metadata in which Pillow looks for an orientation where EXIF has none; viewers do not."


@contextmanager
def opened(data: bytes, form: str) -> Iterator[PillowFile.ImageFile]:
    """Open an image of one format; Pillow's exceptions within the block become an ImageError.

    Raises:
        ImageError: the file is damaged, or its pixels are of a kind that is not read.
    """
    try:
        with PillowImage.open(io.BytesIO(data), formats=(form,)) as image:
            if image.mode in _DEEP_MODES:
                raise ImageError(UNSUPPORTED_FORMAT, f"{form} with 32 bits per channel")
            for name in _XMP:
                image.info.pop(name, None)
            yield image
    except ImageError:
        raise
    except PillowImage.UnidentifiedImageError:  # its message holds a memory address
        raise _why_refused(data, form) from None
    except Exception as error:  # whatever damage makes a plugin raise
        raise _image_error(form, error) from None


def is_opened(data: bytes, form: str) -> bool:
    """Return whether Pillow opens a file, whose metadata it reads more strictly than OpenCV."""
    try:
        with opened(data, form):
            return True
    except ImageError:
        return False


def _why_refused(data: bytes, form: str) -> ImageError:
    """Return what the plugin itself says of a header that ``PillowImage.open`` has refused."""
    try:
        PillowImage.OPEN[form][0](io.BytesIO(data), "").close()
    except Exception as error:
        return _image_error(form, error)
    return ImageError(UNDECODABLE, f"damaged {form} header")


def _image_error(form: str, error: Exception) -> ImageError:
    is_whole = _UNSUPPORTED.search(str(error)) is not None
    reason = UNSUPPORTED_FORMAT if is_whole else UNDECODABLE
    return ImageError(reason, f"{form}: {type(error).__name__}: {error}")


def decode_with_pillow(
    data: bytes, form: str, width: int, is_complete: Callable[[bool], bool] | None = None
) -> Pixels:
    """Return the first frame in RGB on white, scaled down to ``width`` columns.

    Args:
        data: the image file.
        form: Pillow's name of its format.
        width: number of columns of the result.
        is_complete: called with whether the last row is zero, as it is where pixels are missing
            that Pillow does not miss; returns whether all pixels are there.

    Raises:
        ImageError: the image is damaged or truncated.
    """
    with opened(data, form) as image:
        frame, size = _frame(image), image.size
        image.load()
        if image.size != size:
            raise ImageError(UNDECODABLE, f"the {form}'s size is not the one in its header")
        last_row = image.crop((0, image.height - 1, image.width, image.height))
        if is_complete and not is_complete(not any(last_row.tobytes())):
            raise ImageError(UNDECODABLE, f"truncated: part of the {form}'s pixels is missing")
        return join_strips(pillow_on_white(image, frame), width, image.height)


def orientation_of(exif: bytes) -> int:
    """Return the EXIF orientation, 1 (upright) to 8, in a block of EXIF data; 1 without one."""
    if not exif:
        return 1
    tags = PillowImage.Exif()
    try:
        tags.load(exif)
        value = tags.get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata never decides over the pixels
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _frame(image: PillowFile.ImageFile) -> Box:
    """Return the part of the canvas that the first frame covers.

    Raises:
        ImageError: it must cover the whole canvas, but does not.
    """
    boxes = [tile.extents or (0, 0, *image.size) for tile in image.tile]
    if image.format == "GIF" and boxes:
        return boxes[0]
    covered = sum((right - left) * (bottom - top) for left, top, right, bottom in boxes)
    if covered < image.width * image.height:
        raise ImageError(UNDECODABLE, f"part of the {image.format}'s pixels is missing")
    return (0, 0, *image.size)
