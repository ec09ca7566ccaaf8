"""The reasons for which an image is rejected."""

from typing import Final

from dataprep.row_errors import RowError

NOT_AN_IMAGE: Final = "not_an_image"
UNSUPPORTED_FORMAT: Final = "unsupported_format"
UNDECODABLE: Final = "undecodable"
UNENCODABLE: Final = "unencodable"
TOO_SMALL: Final = "too_small"
TOO_LARGE: Final = "too_many_pixels"


class ImageError(RowError):
    """An image that cannot be stored; ``reason`` is one of this module's constants."""
