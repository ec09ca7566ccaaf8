"""Weights of losses that a recipe may give: each must be of a loss that the training has."""

from typing import Any

import pytest
from pydantic import ValidationError

from model.training.objectives import OBJECTIVES
from pipelines.pretrain.params import Params

PIXELS = {"network": {"image_target": "pixels"}}
NO_PAIR_WORDS = {"mvlm_text": 0.0, "mvlm_image": 0.0}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"loss_weights": {"mvlm_image": 0}, **PIXELS},
            "loss_weights.mvlm_image = 0 is of no loss with network.image_target = pixels; the "
            "losses are mlm, mvlm_text, mim_pixels, mvlm_pixels",
        ),
        ({"loss_weights": {"mim_pixels": 0.5}}, "loss_weights.mim_pixels = 0.5 is of no loss"),
        (
            {"loss_weights": dict.fromkeys([o.name for o in OBJECTIVES][:4], 0)},
            "loss_weights of mlm, mim, mvlm_text, mvlm_image are 0, so nothing is trained",
        ),
        (
            {"loss_weights": NO_PAIR_WORDS, "images_per_step": 0, "texts_per_step": 0},
            "loss_weights of mvlm_text, mvlm_image are 0",
        ),
    ],
)
def test_a_weight_without_its_loss_and_no_loss_at_all_are_refused(changes: Any, words):
    with pytest.raises(ValidationError) as error:
        Params(**changes)
    assert words in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss_weights": NO_PAIR_WORDS},
        {"loss_weights": {"mvlm_pixels": 0}, **PIXELS},
        {"loss_weights": {"mvlm_image": 1}, **PIXELS},
        {"loss_weights": {"mlm": 0}, "images_per_step": 0},
    ],
)
def test_every_weight_of_a_loss_that_is_trained_may_be_given(changes: Any):
    Params(**changes)
