"""Parameters of a training that contradict each other are refused by name."""

import pytest
from pydantic import ValidationError

from pipelines.pretrain.params import Params as PretrainParams
from pipelines.tokens.vqkd_training import VQKDTrainingParams


@pytest.mark.parametrize("model", [PretrainParams, VQKDTrainingParams])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lr": 1e-6}, "min_lr = 1e-05 is more than lr = 1e-06; lower min_lr or raise lr"),
        ({"min_lr": 0.5}, "min_lr = 0.5 is more than lr"),
        ({"steps": 50, "warmup_steps": 51}, "warmup_steps = 51 is more than steps = 50; lower"),
        ({"steps": 50}, "is more than steps = 50; lower warmup_steps"),
    ],
)
def test_a_schedule_that_cannot_be_meant_is_refused_with_the_remedy(model, changes, words):
    with pytest.raises(ValidationError, match=words):
        model(**changes)


@pytest.mark.parametrize(
    "changes", [{"lr": 1e-5}, {"steps": 50, "warmup_steps": 50}, {"min_lr": 0, "warmup_steps": 0}]
)
def test_a_constant_rate_and_a_schedule_of_warmup_alone_are_accepted(changes):
    PretrainParams(**changes)
