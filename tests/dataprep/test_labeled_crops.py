"""Crops of images with label maps, and photometric distortion, against plain restatements."""

import colorsys

import numpy as np
import pytest

from dataprep.labeled_crops import MOST_DRAWS, labeled_crop, resized
from dataprep.photometric import colored, distorted, scaled
from dataprep.randomness import rng_of

SIZE, IGNORED = 48, 255


def scene(width: int = 90, height: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Three classes as shades of gray, and ignored pixels in white."""
    rows, columns = np.mgrid[:height, :width]
    labels = ((columns // 30) % 3).astype(np.uint8)
    labels[rows < 6] = IGNORED
    shades = np.array([0, 80, 160] + [0] * 252 + [255], np.uint8)[labels]
    return np.repeat(shades[:, :, None], 3, axis=2), labels


def crops(labels, number=60, ratios=(0.5, 2.0), cap=0.75, **changes):
    keys = {"ignored": IGNORED, "flip": True, "seed": 3, "step": 7} | changes
    return [labeled_crop(labels, SIZE, ratios, cap, slot=i, **keys) for i in range(number)]


def test_labels_stay_with_their_pixels_and_the_padding_is_ignored():
    image, labels = scene()
    for cut in crops(labels):
        pixels, moved = cut.pixels(image), cut.labels(labels, IGNORED)
        assert moved.shape == (SIZE, SIZE) and set(np.unique(moved)) <= {0, 1, 2, IGNORED}
        width, height = cut.seen
        assert (moved[height:] == IGNORED).all() and (moved[:, width:] == IGNORED).all()
        shown = np.array([0, 80, 160] + [0] * 252 + [255])[moved[:height, :width]]
        near = np.abs(pixels[:height, :width, 0].astype(int) - shown) < 40
        assert near.mean() > 0.85


def test_resized_labels_are_those_of_the_nearest_pixel():
    _, labels = scene()
    for cut in crops(labels, 10):
        whole = np.empty((cut.height, cut.width), np.uint8)
        for row in range(cut.height):
            for column in range(cut.width):
                y = int((row + 0.5) * labels.shape[0] / cut.height)
                x = int((column + 0.5) * labels.shape[1] / cut.width)
                whole[row, column] = labels[y, x]
        part = whole[cut.top : cut.top + SIZE, cut.left : cut.left + SIZE]
        part = part[:, ::-1] if cut.flip else part
        found = cut.labels(labels, IGNORED)[: part.shape[0], : part.shape[1]]
        assert (found == part).mean() > 0.995


def fraction(labels: np.ndarray) -> float:
    counts = [int((labels == c).sum()) for c in range(3)]
    return max(counts) / max(sum(counts), 1)


def test_a_cut_of_one_class_is_drawn_again():
    """A class in one corner: without the cap few crops show another one."""
    labels = np.zeros((120, 160), np.uint8)
    labels[80:, 100:] = 1
    shown = {
        cap: np.mean([fraction(cut.labels(labels, IGNORED)) < 0.75 for cut in
                      crops(labels, 300, ratios=(1.5, 1.5), cap=cap)])
        for cap in (1.0, 0.75)
    }  # fmt: skip
    single = shown[1.0]
    assert 0.02 < single < 0.5
    assert abs(shown[0.75] - (1 - (1 - single) ** MOST_DRAWS)) < 0.1
    for constant in (np.zeros((60, 60), np.uint8), np.full((60, 60), IGNORED, np.uint8)):
        assert len(crops(constant, 5)) == 5, "an image of one class is cut all the same"


def test_draws_are_even_and_depend_on_seed_step_and_slot_alone():
    _, labels = scene()
    drawn = crops(labels, 1500, cap=1.0)
    ratios = np.array([cut.height for cut in drawn]) / SIZE
    assert abs(ratios.mean() - 1.25) < 0.03 and ratios.min() < 0.53 and ratios.max() > 1.97
    assert abs(np.mean([cut.flip for cut in drawn]) - 0.5) < 0.04
    wide = [cut.left / (cut.width - SIZE) for cut in drawn if cut.width > SIZE + 20]
    assert abs(np.mean(wide) - 0.5) < 0.03 and min(wide) == 0 and max(wide) <= 1
    assert crops(labels, 3)[2] == crops(labels, 10)[2]
    for key in ({"seed": 4}, {"step": 8}):
        assert crops(labels, 3, **key) != crops(labels, 3)
    assert not any(cut.flip for cut in crops(labels, 20, flip=False))


@pytest.mark.parametrize(
    ("size", "expected"),
    [((90, 60), (72, 48)), ((60, 90), (48, 72)), ((1, 5000), (1, 192)), ((700, 100), (192, 27))],
)
def test_the_shorter_side_decides_unless_the_longer_one_is_extreme(size, expected):
    assert resized(*size, SIZE) == expected


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (9, 11, 3)).astype(np.uint8)


def test_brightness_and_contrast_are_a_line_cut_off_at_both_ends():
    for factor, offset in ((1.0, 31.4), (1.0, -20.0), (0.5, 0.0), (1.5, 0.0)):
        expected = [[[int(min(max(v * factor + offset, 0), 255)) for v in pixel] for pixel in row]
                    for row in image().tolist()]  # fmt: skip
        assert scaled(image(), factor, offset).tolist() == expected


def test_saturation_and_hue_are_those_of_the_standard_library():
    """OpenCV stores hues in steps of two degrees and rounds saturations to bytes."""
    for saturation, hue in ((1.0, 0), (0.6, 0), (1.4, 0), (1.0, 17), (0.8, -12)):
        found = colored(image(), saturation, hue).astype(int)
        for row, column in np.ndindex(9, 11):
            h, s, v = colorsys.rgb_to_hsv(*(image()[row, column] / 255))
            rgb = colorsys.hsv_to_rgb((h + hue / 180) % 1, min(s * saturation, 1), v)
            assert np.abs(found[row, column] - 255 * np.array(rgb)).max() < 7


def test_a_distortion_depends_on_seed_step_and_slot_and_leaves_some_images_alone():
    keys = {"seed": 3, "step": 7}
    made = [distorted(image(), slot=i, **keys) for i in range(200)]
    same = np.mean([np.array_equal(each, image()) for each in made])
    assert 0.02 < same < 0.12, "one in sixteen"
    assert np.array_equal(distorted(image(), slot=5, **keys), made[5])
    assert len({each.tobytes() for each in made}) > 150
    untouched = image()
    distorted(untouched, slot=5, **keys)
    assert np.array_equal(untouched, image())


def test_crop_and_colors_of_a_sample_are_drawn_apart():
    crop, colors = rng_of(3, 7, 5), rng_of(3, 7, 5, "photometric")
    assert crop.random() != colors.random()
