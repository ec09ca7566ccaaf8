"""Scores from windows, scales and mirrors against plain restatements."""

import pytest
import torch
import torch.nn.functional as F

from model.finetuning.finite import NotFinite
from model.finetuning.segmentation.windows import (
    ScaledView,
    best_classes,
    starts,
    window_scores,
)
from tests.model.finetuning.segmentation.shapes import NUM_CLASSES, segmenter

SIZE, STRIDE = 32, 20


@pytest.mark.parametrize(
    ("length", "size", "stride", "expected"),
    [
        (32, 32, 20, [0]),
        (20, 32, 20, [0]),
        (33, 32, 20, [0, 1]),
        (52, 32, 20, [0, 20]),
        (53, 32, 20, [0, 20, 21]),
        (896, 896, 512, [0]),
        (1600, 896, 512, [0, 512, 704]),
        (64, 32, 32, [0, 32]),
    ],
)
def test_windows_cover_the_image_and_end_with_it(length, size, stride, expected):
    assert starts(length, size, stride) == expected
    covered = {i for start in expected for i in range(start, start + size)}
    assert covered >= set(range(length))


def image(height: int, width: int) -> torch.Tensor:
    return torch.randn(3, height, width, generator=torch.Generator().manual_seed(height))


@pytest.mark.parametrize("size", [(32, 32), (47, 90), (20, 70), (9, 11)])
@pytest.mark.parametrize("head", ["pyramid", "mask2former"])
def test_scores_are_means_over_windows_in_any_order_and_batch(head, size):
    network = segmenter(head)
    seen = image(*size)
    padded = F.pad(seen, (0, max(SIZE - size[1], 0), 0, max(SIZE - size[0], 0)))
    total = torch.zeros(NUM_CLASSES, *padded.shape[1:])
    count = torch.zeros(padded.shape[1:])
    tops = range(0, max(size[0] - SIZE, 0) + STRIDE, STRIDE)
    lefts = range(0, max(size[1] - SIZE, 0) + STRIDE, STRIDE)
    for y in reversed([min(top, padded.shape[1] - SIZE) for top in tops]):
        for x in reversed([min(left, padded.shape[2] - SIZE) for left in lefts]):
            some = slice(y, y + SIZE), slice(x, x + SIZE)
            total[:, *some] += network.scores(padded[None, :, *some])[0]
            count[some] += 1
    expected = (total / count)[:, : size[0], : size[1]]
    for at_once in (1, 2, 8):
        found = window_scores(network.scores, seen, SIZE, STRIDE, at_once)
        assert found.shape == (NUM_CLASSES, *size)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_pixelwise_network_gives_its_scores_whatever_the_windows_are():
    def score(windows: torch.Tensor) -> torch.Tensor:
        return torch.stack([windows.sum(1), windows[:, 0] ** 2], dim=1)

    seen = image(47, 90)
    for stride in (5, 20, 32):
        found = window_scores(score, seen, SIZE, stride)
        torch.testing.assert_close(found, score(seen[None])[0], atol=1e-6, rtol=1e-6)


def test_forms_are_averaged_in_the_size_of_the_image_in_any_order():
    def score(windows: torch.Tensor) -> torch.Tensor:
        return torch.stack([windows[:, 0], -windows[:, 0]], dim=1)

    scene = torch.linspace(-1, 1, 64).view(1, 1, 64).expand(3, 48, 64)
    sizes = [(24, 32), (48, 64), (72, 96)]
    views = [
        ScaledView(resized.flip(2) if flipped else resized, flipped)
        for size in sizes
        for flipped in (False, True)
        for resized in [F.interpolate(scene[None], size, mode="bilinear", antialias=True)[0]]
    ]
    is_right = torch.arange(64).expand(48, 64) >= 32
    found = best_classes(score, views, (48, 64), SIZE, STRIDE)
    assert torch.equal(found == 0, is_right)
    reversed_order = best_classes(score, views[::-1], (48, 64), SIZE, STRIDE, at_once=1)
    assert torch.equal(reversed_order, found)
    mirrored = [ScaledView(view.image, not view.flipped) for view in views]
    assert torch.equal(best_classes(score, mirrored, (48, 64), SIZE, STRIDE) == 0, ~is_right)


def mean_scores(score, views: list[ScaledView], shown: tuple[int, int]) -> torch.Tensor:
    """Scores (C, *shown), every form resized in whole and added to the others."""
    total = torch.zeros(())
    for view in views:
        scores = window_scores(score, view.image, SIZE, STRIDE)
        scores = scores.flip(2) if view.flipped else scores
        total = total + F.interpolate(scores[None], shown, mode="bilinear")[0]
    return total / len(views)


@pytest.mark.parametrize("shown", [(97, 131), (48, 64), (20, 30)])
def test_best_classes_are_those_of_the_mean_scores(shown):
    kernel = torch.randn(19, 3, 3, 3, generator=torch.Generator().manual_seed(1))

    def score(windows: torch.Tensor) -> torch.Tensor:
        return F.conv2d(windows, kernel, padding=1)

    scene = image(48, 64)
    views = [ScaledView(scene, False), ScaledView(scene.flip(2), True)]
    found = best_classes(score, views, shown, SIZE, STRIDE)
    expected = mean_scores(score, views, shown)
    assert found.shape == shown and len(found.unique()) > 10
    # Rounding may decide between classes whose scores are equal but for it.
    chosen = expected.gather(0, found[None])[0]
    torch.testing.assert_close(chosen, expected.amax(0), atol=1e-5, rtol=0)


def test_of_equal_classes_the_first_is_best_and_no_numbers_are_refused():
    views = [ScaledView(image(32, 32), False)]

    def equal(windows: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(windows), 19, SIZE, SIZE)

    assert not best_classes(equal, views, (SIZE, SIZE), SIZE, STRIDE).any()
    for number in (float("nan"), float("inf")):
        with pytest.raises(NotFinite, match="scores of the pixels are not finite"):
            best_classes(lambda w, n=number: equal(w) * n, views, (40, 40), SIZE, STRIDE)


def test_windows_with_gaps_are_refused():
    with pytest.raises(ValueError, match="stride 33 of windows of size 32; give one of 1 to 32"):
        window_scores(lambda windows: windows, image(40, 40), SIZE, 33)
