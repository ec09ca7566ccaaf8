"""Images and texts → the input of a network, with the pixels and ids of a training's evaluation."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dataprep.images import UNDECODABLE, UNSUPPORTED_FORMAT, ImageError, Pixels, decode_image
from model import BEiT3Config
from pipelines.finetune.texts import TextEncoder
from pipelines.finetune.views import CropMode, EvaluationViews
from tokenizer.text import TextTokenizer

ImageInput = str | Path | bytes | Image.Image | NDArray[np.uint8]
"A file's path or bytes, a Pillow image, or RGB pixels (height, width, 3); gray ones without the 3."
_TIFF_MODES: Final = ("CMYK", "YCbCr", "LAB")
"Pillow's modes of which TIFF, but not PNG, holds the values as they are."
_CHANNELS: Final = ((1,), (2,), (3,), (4,))
"Gray, gray and alpha, RGB, RGB and alpha."
_EQUAL_MODES: Final = {"HSV": "RGB", "RGBX": "RGB", "RGBa": "RGBA", "La": "LA", "PA": "RGBA"}
"Pillow's modes that no file holds, and those of the same colors that a file does."
T = TypeVar("T")


def many(inputs: Iterable[T], what: str) -> list[T]:
    """Return inputs as a list.

    Args:
        inputs: images, texts or pairs.
        what: their name, for errors.

    Raises:
        TypeError: one input is given where several are expected.
    """
    single = isinstance(inputs, str | bytes | bytearray | memoryview | Path | Image.Image)
    if isinstance(inputs, np.ndarray):
        single = inputs.ndim == 0 or (inputs.dtype.kind not in "OUT" and inputs.ndim < 4)
    if single:
        raise TypeError(
            f"{what} is one {type(inputs).__name__}; give a list, even of one: [{what}]"
        )
    return list(inputs)


class Processor:
    """Prepares images and texts for one network."""

    def __init__(
        self,
        config: BEiT3Config,
        *,
        crop_mode: CropMode = "squash",
        tokenizer: TextTokenizer | None = None,
    ) -> None:
        """Prepare.

        Args:
            config: of the network.
            crop_mode: how an image gets its square form, see ``EvaluationViews``.
            tokenizer: of the network's texts; None if only images are processed.
        """
        self.config, self.crop_mode, self.tokenizer = config, crop_mode, tokenizer
        self._views = EvaluationViews(config.image_size, crop_mode)
        self._texts = None if tokenizer is None else TextEncoder(tokenizer, config.max_text_length)

    def pixels(self, images: Iterable[ImageInput], first: int = 0) -> Pixels:
        """Return the views (B, image_size, image_size, 3) uint8 RGB of images.

        Files are read by the rules of ``dataprep.images``: turned upright, transparency and
        missing parts white, converted to sRGB.

        Args:
            images: the images.
            first: number of the first one, for errors.

        Raises:
            ImageError: an image cannot be read; the message names it.
        """
        given = enumerate(many(images, "images"), first)
        views = [self._views.square(decoded(image, i)) for i, image in given]
        size = self.config.image_size
        return np.stack(views) if views else np.empty((0, size, size, 3), np.uint8)

    def images(self, images: Iterable[ImageInput]) -> Tensor:
        """Return normalized images (B, 3, image_size, image_size) float32."""
        pixels = torch.from_numpy(self.pixels(images)).permute(0, 3, 1, 2).float()
        mean, std = (
            torch.tensor(each).view(3, 1, 1)
            for each in (self.config.pixel_mean, self.config.pixel_std)
        )
        return pixels.div_(255).sub_(mean).div_(std)

    def texts(self, texts: Iterable[str | Sequence[str] | list[int]]) -> tuple[Tensor, Tensor]:
        """Return ids (B, T) long and padding (B, T) bool, True = padded.

        Args:
            texts: B texts, pairs of texts that are read together, or lists of token ids.

        Raises:
            ValueError: the network has no text tokenizer.
        """
        if self._texts is None:
            raise ValueError(
                "the model has no text tokenizer; name its SentencePiece model: "
                "from_pretrained(…, tokenizer=PATH)"
            )
        return self._texts.padded([self._ids(text) for text in many(texts, "texts")])

    def _ids(self, text: str | Sequence[str] | list[int]) -> list[int]:
        assert self._texts is not None
        if isinstance(text, str):
            return self._texts.ids([text])
        words = [part for part in text if isinstance(part, str)]
        return self._texts.ids(words) if words else [i for i in text if isinstance(i, int)]


def decoded(image: ImageInput, number: int) -> Pixels:
    """Return the pixels (height, width, 3) of an image.

    Args:
        image: the image.
        number: its place among the images that were given, for errors.

    Raises:
        ImageError: the image cannot be read.
        OSError: there is no such file, or it cannot be read.
        TypeError: it is of no type that is read.
    """
    name = str(image) if isinstance(image, str | Path) else f"image {number}"
    try:
        if isinstance(image, np.ndarray):
            return _of_array(image)
        if isinstance(image, Image.Image):
            image = _file_of(image)
        elif isinstance(image, str | Path):
            image = _content(image)
        if not isinstance(image, bytes | bytearray | memoryview):
            raise TypeError(
                f"{name} is a {type(image).__name__}; give a path, bytes, a Pillow image or an "
                "array of uint8"
            )
        return decode_image(bytes(image))
    except ImageError as error:
        raise ImageError(error.reason, f"{name}: {error.detail}") from None


def _content(path: str | Path) -> bytes:
    """Return the bytes of a file; a text that is no path of one, such as a caption, is named."""
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or str(error)
        shown = repr(path) if isinstance(path, str) else str(path)
        raise type(error)(
            f"{shown:.200}: {words}; an image is expected: the path of a file, bytes, a Pillow "
            "image or an array"
        ) from None


def _of_array(pixels: NDArray[np.uint8]) -> Pixels:
    channels = pixels.shape[2:] or (1,)
    if pixels.dtype != np.uint8 or 0 in pixels.shape or channels not in _CHANNELS:
        raise TypeError(
            f"an array of {pixels.dtype} {pixels.shape} is no image; give uint8 "
            "(height, width, 3) in RGB"
        )
    if pixels.ndim == 3 and pixels.shape[2] == 3:
        return np.ascontiguousarray(pixels)
    if channels == (1,):
        pixels = pixels.reshape(pixels.shape[:2])
    return decode_image(_file_of(Image.fromarray(pixels)))


def _file_of(image: Image.Image) -> bytes:
    """Return a Pillow image as a file without loss, so that one set of rules reads all images.

    Raises:
        ImageError: its file is damaged, or no file holds its mode.
    """
    file = io.BytesIO()
    exif, profile = image.getexif(), image.info.get("icc_profile")
    form = "TIFF" if image.mode in _TIFF_MODES else "PNG"
    options = {"compress_level": 0} if form == "PNG" else {}
    try:
        image.load()
    except (OSError, ValueError, SyntaxError) as error:  # a file that Pillow opened is read now
        raise ImageError(UNDECODABLE, str(error)) from None
    try:
        image = image.convert(_EQUAL_MODES.get(image.mode, image.mode))
        image.save(file, form, exif=exif, icc_profile=profile, **options)
    except (OSError, ValueError) as error:
        raise ImageError(UNSUPPORTED_FORMAT, f"{error}; convert it to RGB") from None
    return file.getvalue()
