"""Views of examples: torchvision's and timm's pixels, and draws that depend on the slot alone."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from timm.data.transforms_factory import transforms_imagenet_eval
from torchvision.transforms import InterpolationMode, Resize, functional

from dataprep.color_jitter import jitter_color
from dataprep.image_errors import ImageError
from dataprep.images import decode_stored, encode_jpeg
from dataprep.rand_augment import rand_augment
from dataprep.views import random_view
from pipelines.finetune.imagenet_augment import imagenet_rand_augment
from pipelines.finetune.views import AugmentParams, EvaluationViews, TrainingViews

SIZE = 48
SIZES = [(64, 96), (120, 50), (48, 48), (30, 41), (49, 47)]
EVERYTHING = {
    "imagenet": {"min_crop_scale": 0.08, "rand_augment": "imagenet", "random_erasing": 0.25},
    "released": {"rand_augment": "released"},
    "all": {"rand_augment": "released", "color_jitter": 0.4, "random_erasing": 1.0},
    "crops alone": {"flip": False},
}


def jpegs(count, images=1):
    """Stored images of ``count`` examples, of different sizes and colors."""
    found = []
    for number in range(count * images):
        rng = np.random.default_rng(number)
        height, width = SIZES[number % len(SIZES)]
        small = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)
        large = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        found.append(encode_jpeg(np.asarray(large), 95))
    return [found[i : i + images] for i in range(0, len(found), images)]


def names(examples):
    return [f"example-{i}" for i in range(len(examples))]


def views_of(seed=3, **params):
    return TrainingViews(AugmentParams(**params), SIZE, seed)


@pytest.mark.parametrize("params", EVERYTHING.values(), ids=EVERYTHING)
@pytest.mark.parametrize("images", [1, 2])
def test_views_depend_on_seed_step_and_slot_but_not_on_the_division_of_a_batch(params, images):
    examples, slots = jpegs(12, images), np.array([5, 0, 7, 11, 2, 3, 40, 8, 9, 10, 1, 6])
    views = views_of(**params)
    whole = views(examples, names(examples), 4, slots)
    assert whole.shape == (12, images, SIZE, SIZE, 3) and whole.dtype == np.uint8
    for sizes in ([5, 7], [1] * 12, [2, 4, 6]):
        bounds = np.cumsum([0, *sizes])
        parts = [
            views_of(**params)(examples[a:b], names(examples)[a:b], 4, slots[a:b])
            for a, b in pairwise(bounds)
        ]
        assert np.array_equal(np.concatenate(parts), whole)
    shuffled = np.random.default_rng(0).permutation(12)
    again = views([examples[i] for i in shuffled], names(examples), 4, slots[shuffled])
    assert np.array_equal(again, whole[shuffled])
    others = [views_of(seed=4, **params)(examples, names(examples), 4, slots)]
    others += [views(examples, names(examples), 5, slots)]
    others += [views(examples, names(examples), 4, slots + 1)]
    for other in others:
        # An image far from square has often no other crop than that in its middle.
        assert sum((a != b).any() for a, b in zip(other, whole, strict=True)) >= 9


@pytest.mark.parametrize("params", EVERYTHING.values(), ids=EVERYTHING)
def test_threads_build_the_views_that_one_thread_builds(params):
    examples, views = jpegs(6), views_of(**params)

    def build(step):
        return views(examples, names(examples), step, np.arange(6)).tobytes()

    alone = [build(step) for step in range(24)]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(build, range(24))) == alone


def test_the_images_of_an_example_are_cut_and_mirrored_each_for_itself():
    jpeg = jpegs(1)[0][0]
    both = views_of()([[jpeg, jpeg]] * 200, ["pair"] * 200, 0, np.arange(200))
    first, second = both[:, 0].astype(int), both[:, 1].astype(int)
    pixels = decode_stored(jpeg).astype(int)
    rises = np.sign(pixels[:, 48:].mean() - pixels[:, :48].mean())
    mirrored = [
        (views[:, :, 24:].mean((1, 2, 3)) - views[:, :, :24].mean((1, 2, 3))) * rises < 0
        for views in (first, second)
    ]
    assert all((a != b).any() for a, b in zip(first, second, strict=True))
    for own in mirrored:
        assert 70 < own.sum() < 130
    assert 70 < (mirrored[0] ^ mirrored[1]).sum() < 130


def test_a_crop_has_the_pixels_of_torchvisions_resized_crop(monkeypatch):
    examples, found = jpegs(40), []

    def recorded(*arguments, **more):
        found.append(random_view(*arguments, **more))
        return found[-1]

    monkeypatch.setattr("pipelines.finetune.views.random_view", recorded)
    views = views_of()(examples, names(examples), 9, np.arange(40))
    for (jpeg,), (view,), (x, y, width, height, flip) in zip(examples, views, found, strict=True):
        expected = functional.resized_crop(
            Image.fromarray(decode_stored(jpeg)),
            y, x, height, width, [SIZE, SIZE], InterpolationMode.BICUBIC,
        )  # fmt: skip
        assert np.array_equal(view, functional.hflip(expected) if flip else expected)
    assert {view.flip for view in found} == {True, False}


@pytest.mark.parametrize("name", ["released", "imagenet"])
def test_a_crop_is_changed_in_the_order_of_the_released_transform(monkeypatch, name):
    """Operations change the crop, jitter what they give, and noise is drawn last."""
    order = []

    def noted(what, function):
        def call(*arguments):
            order.append(what)
            return function(*arguments)

        return call

    function = rand_augment if name == "released" else imagenet_rand_augment
    path = f"{function.__module__}.{function.__name__}"
    monkeypatch.setattr(path, noted("operations", function))
    monkeypatch.setattr("pipelines.finetune.views.jitter_color", noted("jitter", jitter_color))
    monkeypatch.setattr("pipelines.finetune.views.erase", noted("erasing", lambda *_: None))
    views = views_of(rand_augment=name, color_jitter=0.4, random_erasing=0.5)
    views(jpegs(2), ["a", "b"], 0, np.arange(2))
    assert order == ["operations", "jitter", "erasing"] * 2


@pytest.mark.parametrize("images", [1, 2])
def test_an_evaluation_squashes_as_the_released_transform(images):
    examples = jpegs(5, images)
    views = EvaluationViews(SIZE)(examples, names(examples))
    resize = Resize((SIZE, SIZE), InterpolationMode.BICUBIC)
    for own, some in zip(views, examples, strict=True):
        for view, jpeg in zip(own, some, strict=True):
            assert np.array_equal(view, resize(Image.fromarray(decode_stored(jpeg))))


def test_an_evaluation_on_imagenet_cuts_out_the_middle_as_timms_transform():
    examples = jpegs(15)
    views = EvaluationViews(SIZE, "center")(examples, names(examples))
    theirs = transforms_imagenet_eval(SIZE, crop_pct=1.0, interpolation="bicubic", normalize=False)
    for (view,), (jpeg,) in zip(views, examples, strict=True):
        expected = theirs(Image.fromarray(decode_stored(jpeg)))
        assert np.array_equal(view, expected.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("width", range(40, 140, 3))
def test_the_middle_is_rounded_as_timms_whatever_the_shape(width):
    pixels = np.random.default_rng(width).integers(0, 256, (61, width, 3), dtype=np.uint8)
    jpeg = encode_jpeg(pixels, 95)
    theirs = transforms_imagenet_eval(SIZE, crop_pct=1.0, interpolation="bicubic", normalize=False)
    expected = theirs(Image.fromarray(decode_stored(jpeg))).permute(1, 2, 0).numpy()
    assert np.array_equal(EvaluationViews(SIZE, "center")([[jpeg]], ["a"])[0, 0], expected)


MAKERS = {
    "evaluation": lambda *given: EvaluationViews(SIZE)(*given),
    "training": lambda *given: views_of()(*given, 0, np.arange(2)),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_damaged_image_and_a_missing_one_are_named(make):
    examples = jpegs(2)
    with pytest.raises(ImageError, match="question-77"):
        make([examples[0], [b"\xff\xd8 no image"]], ["question-76", "question-77"])
    with pytest.raises(ValueError, match="example 1 of a batch has 2 images, but the first has 1"):
        make([examples[0], examples[1] * 2], ["a", "b"])


def test_an_empty_batch_has_no_views():
    assert len(views_of()([], [], 0, np.arange(0))) == 0 == len(EvaluationViews(SIZE)([], []))


@pytest.mark.parametrize(
    "wrong",
    [{"min_crop_scale": 0}, {"min_crop_scale": 1.1}, {"random_erasing": -0.1}, {"color_jitter": 1},
     {"rand_augment": "auto"}, {"mixup": 0.8}],
)  # fmt: skip
def test_parameters_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError):
        AugmentParams(**wrong)
