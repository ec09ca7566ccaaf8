"""The table of objectives: an added line reaches the loss, the counts and the step's metrics.

That it also reaches the recipe, figure, evaluation and summary is in
``tests/pipelines/pretrain/test_objectives.py``.
"""

import pytest
import torch

from model import BEiT3
from model.training import objectives
from model.training.objectives import (
    OBJECTIVES,
    TOKENS,
    Objective,
    complete_loss_weights,
    num_predictions,
    predict,
)
from model.training.optimizer import adamw
from model.training.step import train_step
from tests.model.test_step import CONFIG, FP32, global_batch

ADDED = Objective("again", "text", TOKENS, "mlm_head", "Again: masked tokens of texts", "#009E73")


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second text objective, over the same masked tokens and with the same head as MLM."""
    monkeypatch.setattr(objectives, "OBJECTIVES", (*OBJECTIVES, ADDED))


def step(loss_weights: dict[str, float]):
    torch.manual_seed(0)
    network = BEiT3(CONFIG).double()
    optimizer = adamw(network, weight_decay=0.0, betas=(0.9, 0.98), eps=1e-6)
    result = train_step(
        network,
        optimizer,
        global_batch()[1:2],
        lr=1e-3,
        loss_weights=complete_loss_weights(loss_weights),
        max_grad_norm=None,
        autocast=FP32,
    )
    return result, torch.cat([p.grad.flatten() for p in network.parameters()])


@pytest.mark.parametrize(
    ("stream", "names"),
    [(0, {"mim"}), (1, {"mlm"}), (2, {"mvlm_text", "mvlm_image"})],
    ids=["image", "text", "pair"],
)
def test_an_objective_applies_to_the_micro_batches_of_its_stream(stream, names):
    torch.manual_seed(0)
    batch = global_batch()[stream]
    counts = num_predictions(batch)
    predictions = predict(BEiT3(CONFIG).double(), batch)
    assert counts.keys() == predictions.keys() == names
    assert {name: len(p.targets) for name, p in predictions.items()} == counts


def test_predictions_are_cross_entropy_at_masked_positions_of_all_logits():
    """Against logits of every position, selected by the boolean masks."""
    torch.manual_seed(0)
    network, batch = BEiT3(CONFIG).double(), global_batch()[2]
    found = predict(network, batch)
    encoded = network(
        batch.images,
        batch.text_ids,
        image_mask=batch.image_mask,
        residual_scale=batch.residual_scale,
    )
    for name, logits, targets, mask in (
        ("mvlm_text", network.mlm_head(encoded.text), batch.text_targets, batch.text_mask),
        ("mvlm_image", network.mim_head(encoded.patches), batch.codes, batch.image_mask),
    ):
        expected = torch.nn.functional.cross_entropy(logits[mask], targets[mask], reduction="sum")
        torch.testing.assert_close(found[name].loss_sum, expected)
        assert found[name].targets.tolist() == targets[mask].tolist()


def test_an_added_objective_appears_in_loss_counts_and_metrics(added):
    batch = global_batch()[1]
    assert num_predictions(batch) == dict.fromkeys(["mlm", "again"], int(batch.text_mask.sum()))
    result, _ = step({})
    assert list(result.loss) == list(result.accuracy) == ["mlm", "again"]
    assert result.loss["again"] == pytest.approx(result.loss["mlm"])


def test_an_added_objective_adds_its_gradient_with_its_weight(added):
    _, mlm_alone = step({"again": 0.0})
    _, both = step({"again": 0.5})
    torch.testing.assert_close(both, 1.5 * mlm_alone)


def test_names_titles_and_colors_are_unique():
    for field in ("name", "title", "color"):
        values = [getattr(objective, field) for objective in OBJECTIVES]
        assert len(set(values)) == len(values), field


def test_objectives_without_a_loss_weight_have_weight_1(added):
    assert complete_loss_weights({"mim": 0.0}) == {
        "mlm": 1.0,
        "mim": 0.0,
        "mvlm_text": 1.0,
        "mvlm_image": 1.0,
        "mim_pixels": 1.0,
        "mvlm_pixels": 1.0,
        "again": 1.0,
    }


def test_a_loss_weight_of_an_unknown_objective_is_refused():
    with pytest.raises(ValueError, match="no objective is named mxm; objectives: mlm, mim"):
        complete_loss_weights({"mxm": 1.0})
