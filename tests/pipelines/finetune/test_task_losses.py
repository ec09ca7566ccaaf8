"""Losses and predictions of the tasks against the networks and torch, example by example."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from model.training.stochastic_depth import residual_scale
from pipelines.finetune.views import AugmentParams
from tests.pipelines.finetune.examples import LABELS, TASKS, builder, examples, network_of, task_of

NUM = 6
SCORED = [k for k in TASKS if not task_of(k).is_dense and (LABELS[k] or k == "numbers")]
"""Kinds whose network scores labels, once for each example; test_detection.py and
test_segmentation.py have the others."""
STEP, SEED, DROP = 3, 11, 0.4
NUMBERS = np.arange(NUM)


def training_batch(built, kind, part=slice(None)):
    """Some slots of a step, in float64."""
    rows, some = examples(kind, NUM), NUMBERS[part]
    build = built.training(AugmentParams(), DROP, SEED)
    batch = build(rows.take(some), some, STEP, some, np.zeros(len(some), np.int64))
    return doubled(batch.to(torch.device("cpu")))


def doubled(batch):
    images, scale = batch.images, batch.residual_scale
    return replace(
        batch,
        images=None if images is None else images.double(),
        residual_scale=None if scale is None else scale.double(),
    )


def scores_one_by_one(network, kind, batch, trained):
    """Scores of each example alone, without padding, by the network."""
    found = []
    for i in range(len(batch)):
        scale = batch.residual_scale[:, :, :, i] if trained else None
        one = None if scale is None else scale[:, :, 0, None]
        ids = None
        if batch.text_ids is not None:
            ids = batch.text_ids[i][~batch.text_padding[i]][None]
        if kind in ("linear", "several labels"):
            found.append(network(batch.images[i], one))
        elif kind == "dual":
            texts = network.encode_texts(network.text_ids, network.text_padding)
            image = network.encode_images(batch.images[i], one)
            found.append((network.logit_scale.exp() * image @ texts.T)[:, network.text_numbers])
        elif kind == "vqa":
            found.append(network(batch.images[i], ids, None, one))
        elif kind == "nlvr2":
            found.append(network(batch.images[i][None], ids, None, scale))
        else:
            found.append(network(ids, None, one))
    return torch.cat(found)


def expected_loss(kind, scores, targets):
    if kind in ("vqa", "several labels"):
        one = targets * F.logsigmoid(scores) + (1 - targets) * F.logsigmoid(-scores)
        return -one.sum()
    if kind == "numbers":
        return ((scores[:, 0] - targets) ** 2).sum()
    smoothing = 0.1 if kind in ("dual", "linear") else 0.0
    if kind == "dual":  # classes 2 and 3 have one text
        same = torch.tensor(
            [[k != t and {k, t} == {2, 3} for k in range(5)] for t in targets.tolist()]
        )
        scores = scores.masked_fill(same, -torch.inf)
    logs = scores.log_softmax(1)
    right = logs.gather(1, targets[:, None])[:, 0]
    spread = torch.stack([row[row.isfinite()].mean() for row in logs])
    return -((1 - smoothing) * right + smoothing * spread).sum()


@pytest.mark.parametrize("kind", SCORED)
def test_the_loss_is_the_sum_over_examples_each_encoded_alone(kind):
    built = builder(kind)
    network = network_of(built).train()
    batch = training_batch(built, kind)
    found = built.task.losses(network, batch)
    scores = scores_one_by_one(network, kind, batch, True)
    loss = expected_loss(kind, scores, batch.targets)
    torch.testing.assert_close(found["loss"].double(), loss, rtol=1e-5, atol=1e-6)
    if kind == "vqa":
        right = batch.targets.gather(1, scores.argmax(1, keepdim=True)).sum()
    else:
        right = (
            (scores.argmax(1) == batch.targets).sum()
            if scores.ndim == batch.targets.ndim + 1
            else None
        )
    if "accuracy" in found:
        torch.testing.assert_close(found["accuracy"].double(), right.double())
    found["loss"].backward()
    gradients = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    loss.backward()
    norm = max(float(p.grad.norm()) for p in network.parameters() if p.grad is not None)
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            difference = (gradients[name] - parameter.grad).norm()
            assert float(difference) < 1e-5 * norm, name


def test_the_loss_of_retrieval_is_the_symmetric_cross_entropy_of_the_batch():
    built = builder("retrieval")
    network, batch = network_of(built).train(), training_batch(built, "retrieval")
    images, texts = [], []
    for i in range(NUM):
        scale = batch.residual_scale[:, :, :, i]
        ids = batch.text_ids[i][~batch.text_padding[i]][None]
        images.append(network.encode_images(batch.images[i], scale[:, :, 0, None]))
        texts.append(network.encode_texts(ids, None, scale[:, :, 1, None]))
    scores = network.logit_scale.exp() * torch.cat(images) @ torch.cat(texts).T
    right = torch.arange(NUM)
    loss = (F.cross_entropy(scores, right) + F.cross_entropy(scores.T, right)) / 2
    found = built.task.losses(network, batch)
    torch.testing.assert_close(found["loss"].double(), loss * NUM)


@pytest.mark.parametrize("kind", TASKS)
def test_stochastic_depth_depends_on_step_slot_and_pass_alone(kind):
    built = builder(kind)
    whole = training_batch(built, kind).residual_scale
    passes = built.task.num_passes
    assert whole.shape == (3, 2, passes, NUM)
    for part in (slice(0, 1), slice(2, 5)):
        assert torch.equal(training_batch(built, kind, part).residual_scale, whole[..., part])
    values = {round(v, 6) for v in whole.unique().tolist()}
    assert values <= {0, 1, round(1 / 0.8, 6), round(1 / 0.6, 6)} and len(values) > 2
    if passes == 2:
        assert not torch.equal(whole[:, :, 0], whole[:, :, 1])
    build = built.training(AugmentParams(), 0.0, SEED)
    rows = examples(kind, 2)
    assert build(rows, NUMBERS[:2], 0, NUMBERS[:2], 0 * NUMBERS[:2]).residual_scale is None
    assert residual_scale(3, 0.0, 0, 0, NUMBERS) is None


@pytest.mark.parametrize("kind", TASKS)
def test_a_training_batch_does_not_depend_on_its_division(kind):
    built = builder(kind)
    whole = training_batch(built, kind)
    for part in (slice(0, 2), slice(3, 6)):
        some = training_batch(built, kind, part)
        assert some.rows.tolist() == whole.rows[part].tolist()
        for name in ("images", "text_ids", "text_mask", "targets", "residual_scale"):
            one, all_ = getattr(some, name), getattr(whole, name)
            if one is not None:
                dim = one.ndim - 1 if name == "residual_scale" else 0
                assert torch.equal(one, all_.narrow(dim, part.start, len(some))), name


@torch.no_grad()
@pytest.mark.parametrize("kind", SCORED)
def test_predictions_are_the_best_labels_with_their_probabilities(kind):
    built = builder(kind)
    network = network_of(built).eval()
    batch = doubled(built.evaluation(examples(kind, NUM), NUMBERS).to(torch.device("cpu")))
    assert batch.residual_scale is None and batch.text_counts is None
    found = list(built.task.predict(network, batch, LABELS[kind]))
    scores = scores_one_by_one(network, kind, batch, False)
    assert len(found) == NUM
    if kind == "numbers":
        numbers = [prediction.scores[0] for prediction in found]
        assert numbers == pytest.approx(scores[:, 0].tolist(), rel=1e-5)
        assert [p.labels[0] for p in found] == [f"{number:.3f}" for number in numbers]
        return
    alone = kind in ("vqa", "several labels")
    probabilities = scores.sigmoid() if alone else scores.softmax(1)
    for prediction, row in zip(found, probabilities.tolist(), strict=True):
        order = sorted(range(len(row)), key=lambda i, row=row: -round(row[i], 6))
        assert list(prediction.labels) == [LABELS[kind][i] for i in order][:5]
        assert list(prediction.scores) == pytest.approx([row[i] for i in order][:5], rel=1e-4)


@torch.no_grad()
def test_features_of_retrieval_are_the_image_s_and_then_those_of_its_texts():
    built, table = builder("retrieval"), examples("retrieval", NUM)
    network = network_of(built).eval()
    batch = doubled(built.evaluation(table, NUMBERS).to(torch.device("cpu")))
    found = list(built.task.predict(network, batch, []))
    for i, (prediction, texts) in enumerate(zip(found, table["texts"].to_pylist(), strict=True)):
        expected = [network.encode_images(batch.images[i])]
        for text in texts:
            ids = torch.tensor([built.texts.ids([text])])
            expected.append(network.encode_texts(ids))
        torch.testing.assert_close(
            torch.tensor(prediction.features).double(), torch.cat(expected), rtol=1e-5, atol=1e-6
        )


def test_the_text_of_a_training_sample_is_the_chosen_one():
    built, table = builder("retrieval"), examples("retrieval", NUM)
    build = built.training(AugmentParams(), 0.0, SEED)
    counts = np.array([len(texts) for texts in table["texts"].to_pylist()])
    batch = build(table, NUMBERS, 0, NUMBERS, counts - 1)
    for ids, hidden, texts in zip(
        batch.text_ids, batch.text_padding, table["texts"].to_pylist(), strict=True
    ):
        assert ids[~hidden].tolist() == built.texts.ids([texts[-1]])


@pytest.mark.parametrize("kind", TASKS)
def test_in_bf16_the_same_weights_have_nearly_the_same_gradient(kind):
    built = builder(kind)
    network = network_of(built).float().train()
    build = built.training(AugmentParams(), DROP, SEED)
    batches = [
        build(examples(kind, NUM).take(some), some, STEP, some, 0 * some).to(torch.device("cpu"))
        for some in (NUMBERS[:4], NUMBERS[4:])
    ]
    losses, gradients = [], []
    for enabled in (False, True):
        network.zero_grad(set_to_none=True)
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=enabled)
        losses.append(float(built.task.backward(network, batches, NUM, autocast)["loss"]))
        gradients.append({n: p.grad for n, p in network.named_parameters() if p.grad is not None})
    assert losses[1] == pytest.approx(losses[0], rel=0.03) and losses[1] != losses[0]
    assert gradients[0].keys() == gradients[1].keys()
    found, exact = (
        torch.cat([some[name].flatten() for name in gradients[0]]) for some in gradients[::-1]
    )
    assert F.cosine_similarity(found, exact, dim=0) > 0.99
