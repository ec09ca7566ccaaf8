"""Scores from windows, scales and mirrors against plain restatements."""

import pytest
import torch
import torch.nn.functional as F

from model.finetuning.finite import NotFinite
from model.finetuning.segmentation import windows
from model.finetuning.segmentation.windows import (
    ScaledView,
    best_classes,
    enlarged_rows,
    mean_scores,
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
        return windows[:, :2]

    scene = torch.linspace(-1, 1, 64).view(1, 1, 64).expand(3, 48, 64)
    sizes = [(24, 32), (48, 64), (72, 96)]
    views = [
        ScaledView(resized.flip(2) if flipped else resized, flipped)
        for size in sizes
        for flipped in (False, True)
        for resized in [F.interpolate(scene[None], size, mode="bilinear", antialias=True)[0]]
    ]
    found = mean_scores(score, views, (48, 64), SIZE, STRIDE)
    assert (found - scene[:2]).abs().max() < 0.05
    torch.testing.assert_close(
        mean_scores(score, views[::-1], (48, 64), SIZE, STRIDE, at_once=1), found
    )
    mirrored = [ScaledView(view.image, not view.flipped) for view in views]
    assert (mean_scores(score, mirrored, (48, 64), SIZE, STRIDE) - scene[:2]).abs().max() > 1


def test_windows_with_gaps_are_refused():
    with pytest.raises(ValueError, match="stride 33 of windows of size 32; give one of 1 to 32"):
        window_scores(lambda windows: windows, image(40, 40), SIZE, 33)


@pytest.mark.parametrize("size", [(90, 130), (41, 130), (7, 200), (300, 1), (40, 64), (13, 5)])
def test_rows_of_another_size_are_those_of_the_whole(size):
    scores = torch.randn(5, 40, 64, generator=torch.Generator().manual_seed(0))
    whole = F.interpolate(scores[None], size, mode="bilinear", align_corners=False)[0]
    for step in (1, 7, 1000):
        bands = [
            enlarged_rows(scores, size, i, min(i + step, size[0])) for i in range(0, size[0], step)
        ]
        torch.testing.assert_close(torch.cat(bands, dim=1), whole, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("flipped", [[False], [False, True]])
@pytest.mark.parametrize("shown", [(160, 301), (20, 30), (6, 2000)])
def test_classes_of_a_large_image_are_the_same_within_little_memory(shown, flipped, monkeypatch):
    seen = image(40, 64)
    views = [ScaledView(seen.flip(2) if each else seen, each) for each in flipped]

    def score(some):
        return torch.cat([some, -some.sum(dim=1, keepdim=True)], dim=1)

    plain = best_classes(score, views, shown, SIZE, STRIDE, 4)
    expected = mean_scores(score, views, shown, SIZE, STRIDE).argmax(dim=0)
    assert plain.dtype == torch.uint8 and (plain == expected).all()
    monkeypatch.setattr(windows, "MOST_SCORES", 3000)
    found = best_classes(score, views, shown, SIZE, STRIDE, 4)
    assert found.shape == shown and (found == plain).float().mean() > 0.999


def test_forms_of_several_sizes_of_a_large_image_agree_nearly(monkeypatch):
    scene = F.interpolate(torch.randn(1, 3, 6, 8), (80, 128), mode="bicubic")[0]
    small = F.interpolate(scene[None], (40, 64), mode="bilinear", antialias=True)[0]
    views = [ScaledView(scene, False), ScaledView(small, False)]
    plain = best_classes(lambda some: some, views, (200, 320), SIZE, STRIDE, 3)
    monkeypatch.setattr(windows, "MOST_SCORES", 3000)
    found = best_classes(lambda some: some, views, (200, 320), SIZE, STRIDE, 3)
    assert (found == plain).float().mean() > 0.99


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers_are_an_error(value):
    """Else each pixel would have the class 0."""
    view = ScaledView(torch.full((3, 40, 64), value), False)
    with pytest.raises(NotFinite, match="scores of the classes are not finite"):
        best_classes(lambda some: some, [view], (40, 64), SIZE, STRIDE, 3)
