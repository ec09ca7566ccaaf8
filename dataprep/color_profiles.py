"""Conversion of pixels with an ICC profile, such as Display P3, to sRGB."""

import io
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageCms

_MAX_PROFILES: Final = 64
"Number of cached profiles; nearly all images share a few."
_LEVELS: Final = np.arange(0, 256, 15, dtype=np.uint8)
_SAMPLES: Final = np.stack(np.meshgrid(_LEVELS, _LEVELS, _LEVELS), -1).reshape(len(_LEVELS), -1, 3)
"Colors that tell whether a profile is sRGB: names do not, and its many versions differ slightly."
_INVISIBLE: Final = 3
"Largest change of a channel (0-255) by a profile that counts as sRGB."


def needs_conversion(icc_profile: bytes) -> bool:
    """Return whether a profile describes RGB colors other than sRGB."""
    return bool(icc_profile) and _transform(icc_profile) is not None


def to_srgb(pixels: NDArray[np.uint8], icc_profile: bytes) -> NDArray[np.uint8]:
    """Return RGB pixels (height, width, 3) in sRGB; unchanged without a usable profile."""
    transform = _transform(icc_profile) if icc_profile else None
    if transform is None:
        return pixels
    return np.asarray(ImageCms.applyTransform(PillowImage.fromarray(pixels), transform), np.uint8)


@lru_cache(_MAX_PROFILES)
def _transform(icc_profile: bytes) -> ImageCms.ImageCmsTransform | None:
    """Return the transform to sRGB; None for sRGB itself, other color models and damage."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
        if profile.profile.xcolor_space.strip() != "RGB":
            return None
        transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), "RGB", "RGB")
        converted = ImageCms.applyTransform(PillowImage.fromarray(_SAMPLES), transform)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    change = np.abs(np.asarray(converted, np.int16) - _SAMPLES).max()
    return transform if change > _INVISIBLE else None
