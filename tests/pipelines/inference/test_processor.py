"""Pixels of images in any form: those of the stored image, in the view of an evaluation."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataprep.images import ImageRules, decode_stored, store_image
from pipelines import Processor
from pipelines.finetune.views import EvaluationViews
from tests.dataprep.small_images import encoded, gradient
from tests.pipelines.inference.models import config_of

PIXELS = gradient(96, 64)
LARGE = ImageRules(short_side=10_000, jpeg_quality=100, min_side=1, max_pixels=10**8)
TURNED = Image.Exif()
TURNED[0x0112] = 6
FILES = {
    "JPEG": encoded(PIXELS, "JPEG", quality=95),
    "JPEG, turned by EXIF": encoded(PIXELS, "JPEG", exif=TURNED),
    "JPEG, CMYK": encoded(Image.fromarray(PIXELS).convert("CMYK"), "JPEG"),
    "JPEG, gray": encoded(Image.fromarray(PIXELS).convert("L"), "JPEG"),
    "PNG": encoded(PIXELS, "PNG"),
    "PNG, transparent": encoded(np.dstack([PIXELS, PIXELS[..., :1]]), "PNG"),
    "PNG, palette": encoded(Image.fromarray(PIXELS).convert("P"), "PNG"),
    "WebP": encoded(PIXELS, "WEBP", lossless=True),
    "GIF": encoded(PIXELS, "GIF"),
    "TIFF, CMYK": encoded(Image.fromarray(PIXELS).convert("CMYK"), "TIFF"),
}  # fmt: skip


@pytest.mark.parametrize("crop_mode", ["squash", "center"])
@pytest.mark.parametrize("size", [32, 96])
def test_a_stored_image_has_the_pixels_of_an_evaluation(crop_mode, size):
    stored = store_image(FILES["PNG"], ImageRules(48, 95, 1, 10**8)).jpeg
    processor = Processor(config_of(image_size=size), crop_mode=crop_mode)
    expected = EvaluationViews(size, crop_mode)([[stored]], ["a"])[0]
    assert np.array_equal(processor.pixels([stored]), expected)
    normalized = processor.images([stored]).numpy()
    np.testing.assert_allclose(normalized[0], expected[0].transpose(2, 0, 1) / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_as_it_would_be_stored(tmp_path, name):
    data = FILES[name]
    processor = Processor(config_of(image_size=64))
    stored = decode_stored(store_image(data, LARGE).jpeg)
    found = processor.pixels([data])
    expected = EvaluationViews(64).square(stored)
    # Storing encodes once more, which blurs what a palette has dithered.
    most = 10 if name in ("PNG, palette", "GIF") else 1.5
    assert np.abs(found[0].astype(int) - expected).mean() < most
    path = tmp_path / "image"
    path.write_bytes(data)
    opened = Image.open(io.BytesIO(data))
    for same in (path, str(path)):
        assert np.array_equal(processor.pixels([same]), found)
    with_pillow = processor.pixels([opened])
    # Pillow has already converted the CMYK of a JPEG, and libjpeg's versions differ by rounding.
    assert np.abs(with_pillow.astype(int) - found).mean() < (20 if "CMYK" in name else 1)


def test_arrays_and_pillow_images_keep_their_pixels():
    processor = Processor(config_of(image_size=64))
    pixels = gradient(64, 64)
    assert np.array_equal(processor.pixels([pixels])[0], pixels)
    assert np.array_equal(processor.pixels([Image.fromarray(pixels)])[0], pixels)
    gray = processor.pixels([pixels[..., 0]])[0]
    assert np.array_equal(gray, np.dstack([pixels[..., 0]] * 3))
    transparent = processor.pixels([np.dstack([pixels, np.zeros((64, 64), np.uint8)])])[0]
    assert (transparent == 255).all()


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        (b"<html>", ValueError, "image 0: .*HTML|image 0: "),
        (FILES["JPEG"][:700], ValueError, "image 0: "),
        (b"", ValueError, "image 0: "),
        (Path("/no/such.jpg"), FileNotFoundError, "/no/such.jpg"),
        (np.zeros((4, 4, 3), np.float32), TypeError, "float32"),
        (np.zeros((4, 4, 3, 1), np.uint8), TypeError, "no image"),
        (np.zeros((0, 4, 3), np.uint8), TypeError, "no image"),
        (7, TypeError, "image 0 is a int; give a path"),
    ],
)
def test_what_is_no_image_is_named(image, error, words):
    with pytest.raises(error, match=words):
        Processor(config_of()).pixels([image])
