"""Classification among class texts against a dense restatement with torch, in fp64."""

import pytest
import torch
import torch.nn.functional as F

from model import BEiT3
from model.finetuning import class_texts
from model.finetuning.class_texts import ForClassTexts
from tests.model.networks import RELEASED

NUM_IMAGES = 6
EXACT = torch.autocast("cpu", enabled=False)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(class_texts, "_CHUNK", 3)


def texts(*, duplicates):
    """Ids and padding of seven classes; two pairs of them may have one text."""
    ids = torch.randint(4, 60, (7, 9), generator=torch.Generator().manual_seed(2))
    lengths = torch.tensor([9, 5, 7, 4, 9, 5, 6])
    if duplicates:
        ids[4], lengths[4], ids[6], lengths[6] = ids[1], 5, ids[3], 4
    padding = torch.arange(9) >= lengths[:, None]
    return ids.masked_fill(padding, 1), padding


def built(*, duplicates=False):
    torch.manual_seed(0)
    network = ForClassTexts(BEiT3(RELEASED), *texts(duplicates=duplicates)).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        network.logit_scale.fill_(1.0)
    images = torch.randn(NUM_IMAGES, 3, 32, 32, dtype=torch.float64)
    return network, images, torch.tensor([1, 4, 0, 3, 6, 2])


def gradients(network):
    return {n: p.grad for n, p in network.named_parameters() if p.grad is not None}


def dense_scores(network, images, duplicates):
    ids, padding = texts(duplicates=duplicates)
    return (
        network.logit_scale.exp()
        * network.encode_images(images)
        @ (network.encode_texts(ids, padding).T)
    )


def dense_loss(scores, targets, smoothing, duplicates):
    """Sum of cross-entropies, in each of which a class of the target's text is no answer."""
    ids, _ = texts(duplicates=duplicates)
    losses = []
    for row, target in zip(scores, targets.tolist(), strict=True):
        kept = [k for k in range(7) if k == target or not torch.equal(ids[k], ids[target])]
        right = torch.tensor(kept.index(target))
        losses.append(F.cross_entropy(row[kept], right, label_smoothing=smoothing))
    return torch.stack(losses).sum()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("duplicates", [False, True])
@pytest.mark.parametrize("micro_batch", [1, 4, 6])
def test_loss_and_gradients_are_those_of_the_dense_restatement(smoothing, duplicates, micro_batch):
    network, images, targets = built(duplicates=duplicates)
    parts = zip(images.split(micro_batch), targets.split(micro_batch), strict=True)
    batches = [(lambda some=some: network.encode_images(some), right) for some, right in parts]
    sums = network.backward(batches, 10, smoothing, EXACT)
    found = gradients(network)

    plain, images, targets = built(duplicates=duplicates)
    scores = dense_scores(plain, images, duplicates)
    loss = dense_loss(scores, targets, smoothing, duplicates)
    if not duplicates:
        again = F.cross_entropy(scores, targets, label_smoothing=smoothing, reduction="sum")
        torch.testing.assert_close(loss, again)
    (loss / 10).backward()
    torch.testing.assert_close(sums["loss"], loss.detach(), rtol=1e-9, atol=0)
    assert found.keys() == gradients(plain).keys()
    for name, gradient in gradients(plain).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-6, atol=1e-12, msg=name)


def test_of_one_text_there_is_no_better_class_and_each_is_right_for_its_own_images():
    """The loss of a target is the same for both classes of a text."""
    network, images, targets = built(duplicates=True)
    scores = dense_scores(network, images, True)
    swapped = torch.tensor([4, 1, 0, 6, 3, 2])
    torch.testing.assert_close(
        network.loss(scores, targets, 0.1), network.loss(scores, swapped, 0.1)
    )


@pytest.mark.parametrize("duplicates", [False, True])
def test_scores_of_an_evaluation_are_the_dense_ones_and_equal_for_equal_texts(duplicates):
    network, images, _ = built(duplicates=duplicates)
    expected = dense_scores(network, images, duplicates)
    torch.testing.assert_close(network(images), expected)  # with a gradient
    with torch.no_grad():
        found = network.eval()(images)
    torch.testing.assert_close(found, expected.detach())
    if duplicates:
        assert torch.equal(found[:, 1], found[:, 4]) and torch.equal(found[:, 3], found[:, 6])


@torch.no_grad()
def test_features_of_the_texts_are_computed_again_after_training():
    network, images, _ = built()
    before = network.eval()(images)
    assert network.text_features() is network.text_features()
    network.train()
    network.language_head.weight.mul_(torch.arange(48)[:, None] % 3 + 0.5)
    after = network.eval()(images)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, dense_scores(network, images, False))


def test_the_texts_are_no_part_of_the_weights():
    network, *_ = built()
    assert not [name for name in network.state_dict() if name.startswith("text_")]
