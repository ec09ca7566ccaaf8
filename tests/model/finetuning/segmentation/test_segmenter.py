"""The encoder with both heads: losses, what is learned, and what decides over the scores."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from model.finetuning.layer_decay import lr_scale
from model.finetuning.segmentation.network import side_multiple
from model.finetuning.segmentation.pyramid_head import PyramidHead
from model.finetuning.segmentation.settings import IGNORED
from model.finetuning.starting import fit_encoder, load_given
from tests.model.finetuning.segmentation.shapes import (
    CONFIG,
    HEADS,
    NUM_CLASSES,
    images,
    labels,
    segmenter,
)

SEEDS = [11, 12, 13]


@pytest.mark.parametrize("head", HEADS)
def test_the_losses_of_a_batch_are_those_of_its_images_one_by_one(head):
    network = segmenter(head).train()
    together = network.losses(images(), labels(), SEEDS)
    for i in range(3):
        one = slice(i, i + 1)
        alone = network.losses(images()[one], labels()[one], SEEDS[one])
        for name, loss in together.items():
            torch.testing.assert_close(loss[i], alone[name][0], atol=1e-4, rtol=1e-4, msg=name)


@pytest.mark.parametrize("head", HEADS)
def test_every_parameter_is_trained(head):
    network = segmenter(head)
    losses = network.losses(images(), labels(), SEEDS)
    sum(loss.sum() for loss in losses.values()).backward()
    missing = {name for name, p in network.named_parameters() if p.grad is None}
    final_norm = {name for name, _ in network.named_parameters() if name.startswith("network.norm")}
    assert final_norm
    expected = {"network.vision.mask_token"} | (final_norm if head == "mask2former" else set())
    assert missing == expected
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize("head", HEADS)
def test_in_bf16_a_copy_of_the_network_has_nearly_the_same_losses_and_scores(head):
    network = deepcopy(segmenter(head))
    expected = segmenter(head).losses(images(), labels(), SEEDS)
    scores = segmenter(head).scores(images())
    with torch.autocast("cpu", torch.bfloat16):
        found = network.losses(images(), labels(), SEEDS)
        in_bf16 = network.scores(images())
    for name, loss in expected.items():
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name], loss, atol=0.05, rtol=0.1)
    assert in_bf16.dtype == torch.float32
    assert (in_bf16 - scores).abs().mean() < 0.02


def test_the_smaller_head_is_cross_entropy_over_labeled_pixels():
    network = segmenter("pyramid")
    found = network.losses(images(), labels(), SEEDS)["class"]
    probabilities = network.scores(images())
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(3, 32, 32))
    for i in range(2):
        some = labels()[i] != IGNORED
        right = probabilities[i].permute(1, 2, 0)[some].gather(1, labels()[i][some][:, None])
        torch.testing.assert_close(found[i], -right.log().mean(), atol=1e-5, rtol=1e-5)
    assert found[2] == 0, "an image without any labeled pixel"


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_rare_classes_of_an_image_count_more_as_far_as_the_balance_says(balance):
    torch.manual_seed(0)
    head = PyramidHead(24, NUM_CLASSES, 16, balance)
    map_ = torch.randn(3, 24, 4, 4, generator=torch.Generator().manual_seed(3))
    found = head.losses(map_, labels(), SEEDS)["class"]
    probabilities = head.scores(map_, (32, 32))
    for i in range(2):
        weighted, total = 0.0, 0.0
        for class_ in range(NUM_CLASSES):
            mine = labels()[i] == class_
            if mine.any():
                weight = float(mine.sum()) ** -balance
                weighted -= weight * float(probabilities[i, class_][mine].log().sum())
                total += weight * float(mine.sum())
        assert float(found[i]) == pytest.approx(weighted / total, rel=1e-5)
    assert found[2] == 0


def scene(number: int, side: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Rectangles of two brightnesses on a dark ground: classes 1 and 2 on 0."""
    rng = torch.Generator().manual_seed(5)
    wanted = torch.zeros(number, side, side, dtype=torch.long)
    for of_image in wanted:
        for class_ in (1, 2):
            top, left = torch.randint(0, side - 10, (2,), generator=rng).tolist()
            of_image[top : top + 10, left : left + 10] = class_
    shades = wanted[:, None].float() - 1
    return (shades + 0.1 * torch.randn(number, 1, side, side, generator=rng)).expand(
        -1, 3, -1, -1
    ), wanted


@pytest.mark.parametrize(
    ("head", "lr"), [("pyramid", 1e-2), pytest.param("mask2former", 3e-3, marks=pytest.mark.slow)]
)
def test_a_head_learns_which_pixels_belong_to_a_class(head, lr):
    network = segmenter(head)
    seen, wanted = scene(2)
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr)
    for step in range(60):
        losses = network.losses(seen, wanted, [2 * step, 2 * step + 1])
        optimizer.zero_grad()
        sum(loss.mean() for loss in losses.values()).backward()
        optimizer.step()
    found = network.scores(seen).argmax(dim=1)
    ious = [
        ((found == c) & (wanted == c)).sum() / ((found == c) | (wanted == c)).sum()
        for c in range(NUM_CLASSES)
    ]
    assert min(ious) > 0.5, ious


@pytest.mark.parametrize(("head", "patch", "multiple"), [
    ("pyramid", 8, 16), ("mask2former", 8, 32), ("mask2former", 16, 32),
])  # fmt: skip
def test_sides_are_multiples_of_what_the_maps_need(head, patch, multiple):
    assert side_multiple(head, patch) == multiple
    config = replace(CONFIG, patch_size=patch, image_size=2 * patch)
    network = segmenter(head, config)
    assert network.scores(images(1, multiple)).shape == (1, NUM_CLASSES, multiple, multiple)
    with pytest.raises(ValueError, match="multiples of"):
        network.scores(images(1, multiple + multiple // 2))


@pytest.mark.parametrize("head", HEADS)
def test_new_layers_learn_at_the_full_rate(head):
    for name, _ in segmenter(head).named_parameters():
        if not name.startswith("network."):
            assert lr_scale(name, CONFIG.depth, layer_decay=0.5) == 1.0, name


def test_scores_have_the_size_of_the_image():
    for head in HEADS:
        network = segmenter(head)
        seen = F.pad(images(1), (0, 32))
        assert network.scores(seen).shape == (1, NUM_CLASSES, 32, 64)
        assert network.scores(seen).requires_grad is False


@pytest.mark.parametrize("head", HEADS)
def test_another_training_starts_from_all_but_the_layers_of_other_classes(head):
    given = segmenter(head)
    with torch.no_grad():
        for parameter in given.parameters():
            parameter.add_(1.0)
    fitted, report = fit_encoder(given.state_dict(), CONFIG)
    assert not report.unused and not report.fresh
    for labels_now, of_classes in ((["a", "b", "c"], False), (["a", "c", "b"], True)):
        network = segmenter(head)
        load_given(network, fitted, given_labels=["a", "b", "c"], labels=labels_now)
        before, wanted = segmenter(head).state_dict(), given.state_dict()
        kept = {
            name for name, t in network.state_dict().items() if not torch.equal(t, wanted[name])
        }
        layer = {"pyramid": "head.classes", "mask2former": "head.class_predictor"}[head]
        assert kept == ({f"{layer}.weight", f"{layer}.bias"} if of_classes else set())
        assert all(torch.equal(network.state_dict()[name], before[name]) for name in kept)
