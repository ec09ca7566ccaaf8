"""The reasons for which an image is rejected."""

from typing import Final

NOT_AN_IMAGE: Final = "not_an_image"
UNSUPPORTED_FORMAT: Final = "unsupported_format"
UNDECODABLE: Final = "undecodable"
UNENCODABLE: Final = "unencodable"
TOO_SMALL: Final = "too_small"
TOO_LARGE: Final = "too_many_pixels"


class ImageError(ValueError):
    """An image that cannot be stored; ``reason`` is one of this module's constants."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"
