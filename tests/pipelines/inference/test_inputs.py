"""Inputs of a kind that no method reads are refused by number; every mode of Pillow is read."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dataprep.images import ImageError
from pipelines import PretrainedModel
from tests.pipelines.inference.models import builder_of, fine_tuned, pretrained

PIXELS = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
NUM_PATCHES = 16
ALL = np.ones((1, NUM_PATCHES), bool)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    folders = {"pretrained": pretrained(folder / "pretrained" / "export")}
    for kind in ("vqa", "nlvr2", "sentences"):
        folders[kind] = fine_tuned(folder / kind / "export", builder_of(kind))
    return {name: PretrainedModel.from_pretrained(path) for name, path in folders.items()}


NO_TEXTS = [None, 3, b"abc", float("nan"), [5, 6], ["a", 3], np.array([5, 6]), PIXELS]


@pytest.mark.parametrize("text", NO_TEXTS, ids=lambda text: type(text).__name__)
def test_what_is_no_text_is_refused_by_every_method(models, text):
    plain = models["pretrained"]
    for call in (
        lambda: plain.embed_texts(["a", text]),
        lambda: plain.fill_mask(["<mask>", text]),
        lambda: plain.fill_patches([PIXELS] * 2, np.repeat(ALL, 2, 0), ["a", text]),
        lambda: models["vqa"].answer([PIXELS] * 2, ["a", text]),
        lambda: models["sentences"].classify(["a", text]),
        lambda: models["nlvr2"].classify_pairs([(PIXELS, PIXELS)] * 2, ["a", text]),
    ):
        with pytest.raises(TypeError, match=r"number 1 is .*; give a str") as refused:
            call()
        assert "\n" not in str(refused.value)


def test_a_group_of_the_wrong_number_is_refused(models):
    with pytest.raises(ValueError, match="texts: number 0 has 0 texts; give 1 or more"):
        models["pretrained"].embed_texts([()])
    with pytest.raises(ValueError, match="inputs: number 0 has 3 texts; give 1 to 2"):
        models["sentences"].classify([("a", "b", "c")])
    with pytest.raises(ValueError, match="questions: number 0 has 2 texts; give 1"):
        models["vqa"].answer([PIXELS], [("a", "b")])
    for pairs in ([(PIXELS,)], [(PIXELS,) * 3, (PIXELS,)], PIXELS[None, None]):
        with pytest.raises(ValueError, match=r"pairs: number 0 has . images; give 2 in each"):
            models["nlvr2"].classify_pairs(pairs, ["a"] * len(pairs))


def test_a_text_that_is_not_unicode_is_refused(models):
    with pytest.raises(ValueError, match=r"number 1 is .* not valid Unicode; decode it"):
        models["pretrained"].embed_texts(["a", "b\ud800c"])


@pytest.mark.parametrize("kind", [np.array, pd.Series, iter, lambda texts: np.array(texts, object)])
def test_texts_may_be_in_any_collection(models, kind):
    texts = ["one red circle", "two"]
    assert np.array_equal(
        models["pretrained"].embed_texts(kind(texts)), models["pretrained"].embed_texts(texts)
    )


@pytest.mark.parametrize("mask", [
    np.arange(NUM_PATCHES)[None], np.full((1, NUM_PATCHES), 0.3), [[0, 3, 5]], [], None, ALL[0],
], ids=str)  # fmt: skip
def test_a_mask_of_another_kind_is_refused(models, mask):
    with pytest.raises(ValueError, match=r"masks ho|masks have the shape"):
        models["pretrained"].fill_patches([PIXELS], mask)


def test_no_images_have_no_patches_to_fill(models):
    for masks in ([], np.ones((0, NUM_PATCHES), bool)):
        assert models["pretrained"].fill_patches([], masks) == []
    with pytest.raises(ValueError, match="batch_size is -1; it must be 1 or more"):
        models["pretrained"].codes([PIXELS], batch_size=-1)


SAME = {"1": "1", "L": "L", "P": "P", "LA": "LA", "RGBA": "RGBA", "CMYK": "CMYK", "YCbCr": "YCbCr",
        "HSV": "RGB", "RGBX": "RGB", "RGBa": "RGBA", "La": "LA", "PA": "RGBA"}  # fmt: skip
"Modes of Pillow, and a mode of the same pixels that a file holds."


@pytest.mark.parametrize("mode", SAME)
def test_an_image_of_every_mode_of_pillow_is_read(models, mode):
    image = Image.fromarray(PIXELS)
    for step in {"PA": ("P",), "RGBa": ("RGBA",), "La": ("LA",)}.get(mode, ()):
        image = image.convert(step)
    image = image.convert(mode)
    processor = models["pretrained"].processor
    assert np.array_equal(processor.pixels([image]), processor.pixels([image.convert(SAME[mode])]))


def test_a_gray_array_may_have_a_third_dimension(models):
    processor, gray = models["pretrained"].processor, PIXELS[..., 0]
    assert np.array_equal(processor.pixels([gray]), processor.pixels([gray[..., None]]))


def test_a_pillow_image_that_cannot_be_read_is_an_image_error(models):
    file = io.BytesIO()
    Image.fromarray(PIXELS).resize((400, 400)).save(file, "JPEG")
    cut = Image.open(io.BytesIO(file.getvalue()[:2000]))
    cases = {"undecodable": cut, "unsupported_format": Image.new("F", (4, 4))}
    for reason, image in cases.items():
        with pytest.raises(ImageError, match="image 0: ") as refused:
            models["pretrained"].embed_images([image])
        assert refused.value.reason == reason
    for shape in ((3, 30, 40), (30, 40, 5), (30, 40, 3, 1)):
        with pytest.raises(TypeError, match="is no image; give uint8"):
            models["pretrained"].embed_images([np.zeros(shape, np.uint8)])
