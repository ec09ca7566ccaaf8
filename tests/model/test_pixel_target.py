"""Normalized pixels as the target of masked patches, against the MAE of transformers."""

from dataclasses import replace

import pytest
import torch
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from model import BEiT3
from model.training import objectives
from model.training.batch import MicroBatch
from model.training.objectives import complete_loss_weights, num_predictions, predict
from model.training.optimizer import adamw
from model.training.squared_error import normalized_patches, squared_error_sum
from model.training.step import train_step
from tests.model.test_step import CONFIG, FP32, global_batch, rows

PIXELS = replace(CONFIG, image_target="pixels")


def without_codes() -> list[MicroBatch]:
    batches = global_batch()
    for batch in batches:
        batch.codes = None
    return batches


@pytest.mark.parametrize(("side", "patch"), [(16, 4), (24, 8), (28, 14)])
def test_the_loss_is_that_of_transformers_mae(side, patch):
    """The mean over masked patches, of what its head gives for every patch."""
    config = ViTMAEConfig(
        image_size=side, patch_size=patch, norm_pix_loss=True, hidden_size=12,
        num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, decoder_hidden_size=12,
        decoder_num_hidden_layers=1, decoder_num_attention_heads=2, decoder_intermediate_size=8,
    )  # fmt: skip
    theirs = ViTMAEForPreTraining(config)
    num_patches = (side // patch) ** 2
    images = torch.rand(3, 3, side, side)
    with torch.no_grad():
        made = theirs(images)
    mask = made.mask.bool()
    targets = normalized_patches(images, num_patches)
    total, correct, losses = squared_error_sum(made.logits[mask], targets[mask])
    torch.testing.assert_close(total / mask.sum(), made.loss)
    torch.testing.assert_close(losses.sum(), total)
    assert correct is None


def test_a_patch_of_one_color_has_finite_targets():
    assert normalized_patches(torch.full((1, 3, 8, 8), 0.5), 4).eq(0).all()


@pytest.mark.parametrize(
    ("stream", "names"),
    [(0, {"mim_pixels"}), (1, {"mlm"}), (2, {"mvlm_text", "mvlm_pixels"})],
    ids=["image", "text", "pair"],
)
def test_images_without_codes_are_predicted_by_their_pixels(stream, names):
    batch = without_codes()[stream]
    predictions = predict(BEiT3(PIXELS).double(), batch)
    assert predictions.keys() == num_predictions(batch).keys() == names
    for name, made in predictions.items():
        assert (made.num_correct is None) == name.endswith("pixels")


def test_images_with_codes_do_not_pay_for_pixels(monkeypatch):
    def refused(*_: object) -> torch.Tensor:
        raise AssertionError("pixels were normalized")

    monkeypatch.setattr(objectives, "normalized_patches", refused)
    for batch in global_batch():
        assert predict(BEiT3(CONFIG).double(), batch).keys() == num_predictions(batch).keys()


def step(batches: list[MicroBatch]):
    torch.manual_seed(0)
    network = BEiT3(PIXELS).double()
    optimizer = adamw(network, weight_decay=0.0, betas=(0.9, 0.98), eps=1e-6)
    result = train_step(
        network, optimizer, batches, lr=1e-3, loss_weights=complete_loss_weights({}),
        max_grad_norm=None, autocast=FP32,
    )  # fmt: skip
    return network, result


def test_loss_and_gradient_do_not_depend_on_the_micro_batch():
    whole, expected = step(without_codes())
    split, found = step([rows(b, i, i + 2) for b in without_codes() for i in (0, 2, 4)])
    assert expected.loss.keys() == {"mlm", "mim_pixels", "mvlm_text", "mvlm_pixels"}
    assert expected.accuracy.keys() == {"mlm", "mvlm_text"}
    assert found.loss == pytest.approx(expected.loss, rel=1e-9)
    for (name, one), other in zip(whole.named_parameters(), split.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-6, atol=1e-9, msg=name)


def test_the_head_has_an_output_for_each_value_of_a_patch():
    assert BEiT3(PIXELS).mim_head.out_features == 3 * 4 * 4
    assert BEiT3(CONFIG).mim_head.out_features == 12
