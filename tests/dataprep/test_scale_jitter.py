"""Large-scale jitter: pixels, boxes and masks that stay together, and the draws."""

import numpy as np
import pytest

from dataprep.scale_jitter import PADDING, ScaledCut, fitted, jittered

WIDTH, HEIGHT, SIZE = 90, 60, 64


def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A white ellipse on black: image, mask and box."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    mask = ((columns - 40) / 25) ** 2 + ((rows - 30) / 15) ** 2 <= 1
    image = np.repeat(mask[:, :, None], 3, axis=2).astype(np.uint8) * 255
    return image, mask, np.array([[15, 15, 65, 45]], np.float32)


def cuts(number: int, scales: tuple[float, float] = (0.5, 2.0)) -> list[ScaledCut]:
    keys = {"flip": True, "seed": 3, "step": 7}
    return [jittered(WIDTH, HEIGHT, SIZE, scales, slot=i, **keys) for i in range(number)]


def test_pixels_mask_and_box_of_an_object_stay_together():
    image, mask, box = scene()
    num_seen = 0
    for cut in cuts(60):
        pixels, moved = cut.pixels(image), cut.mask(mask)
        left, top, right, bottom = cut.boxes(box, WIDTH, HEIGHT)[0]
        rows, columns = np.nonzero(moved)
        assert (pixels[cut.seen[1] :] == PADDING).all()
        assert (pixels[:, cut.seen[0] :] == PADDING).all()
        white = pixels[: cut.seen[1], : cut.seen[0], 0] > 127
        assert (white ^ moved[: cut.seen[1], : cut.seen[0]]).sum() <= 0.12 * moved.sum() + 8
        if len(rows) < 20:
            continue
        num_seen += 1
        edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        inner = (cut.seen[0] - 1, cut.seen[1] - 1)
        if left > 0 and right < inner[0] and top > 0 and bottom < inner[1]:  # nothing was cut away
            np.testing.assert_allclose([left, top, right, bottom], edges, atol=2.5)
        assert left <= edges[0] + 2 and right >= edges[2] - 2
    assert num_seen > 40


def test_boxes_by_hand():
    """60 x 40 at twice its size, 10 columns and 6 rows cut away, in a square of 100."""
    boxes = np.array([[10, 5, 20, 15], [0, 0, 4, 40], [50, 30, 60, 40]], np.float32)
    cut = ScaledCut(120, 80, 10, 6, 100, flip=False)
    assert cut.seen == (100, 74)
    expected = [[10, 4, 30, 24], [0, 0, 0, 74], [90, 54, 100, 74]]
    assert cut.boxes(boxes, 60, 40).tolist() == expected
    mirrored = ScaledCut(120, 80, 10, 6, 100, flip=True)
    expected = [[70, 4, 90, 24], [100, 0, 100, 74], [0, 54, 10, 74]]
    assert mirrored.boxes(boxes, 60, 40).tolist() == expected


def test_scales_cuts_and_mirrors_are_drawn_evenly():
    drawn = cuts(2000, (0.1, 2.0))
    scales = np.array([cut.width for cut in drawn]) / SIZE
    assert abs(scales.mean() - 1.05) < 0.03 and scales.min() < 0.12 and scales.max() > 1.98
    assert abs(np.mean([cut.flip for cut in drawn]) - 0.5) < 0.03
    wide = [cut.left / (cut.width - SIZE) for cut in drawn if cut.width > SIZE + 20]
    assert abs(np.mean(wide) - 0.5) < 0.04 and max(wide) <= 1
    assert all(cut.left == 0 for cut in drawn if cut.width <= SIZE)


def test_a_draw_depends_on_seed_step_and_slot_alone():
    keys = {"seed": 3, "step": 7, "slot": 2}
    assert cuts(3)[2] == cuts(10)[2]
    for key in keys:
        other = jittered(WIDTH, HEIGHT, SIZE, (0.5, 2.0), flip=True, **keys | {key: 99})
        assert other != cuts(3)[2]
    assert not any(
        jittered(9, 9, SIZE, (1, 1), flip=False, seed=0, step=0, slot=i).flip for i in range(20)
    )


@pytest.mark.parametrize(
    ("width", "height", "seen"), [(90, 60, (64, 43)), (10, 40, (16, 64)), (1, 5000, (1, 64))]
)
def test_an_evaluated_image_fits_into_the_square(width, height, seen):
    cut = fitted(width, height, SIZE)
    assert cut.seen == seen == (cut.width, cut.height)
    assert cut.pixels(np.zeros((height, width, 3), np.uint8)).shape == (SIZE, SIZE, 3)
