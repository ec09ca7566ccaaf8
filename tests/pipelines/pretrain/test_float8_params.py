"""``train.float8``: what contradicts it, and what a plan says where it cannot run."""

import pytest
from pydantic import ValidationError

from model.training import float8
from orchestration.fingerprint import semantic
from pipelines.pretrain import pretrain
from pipelines.pretrain.params import Params


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"precision": "fp32"}, "float8 = true needs precision = bf16, not fp32"),
        ({"use_gpu": False}, "float8 = true needs use_gpu = true, not false"),
        (
            {"network": {"size": "tiny", "ffn_width": 100}},
            "float8 = true: network.ffn_width = 100 is not a multiple of 16; change it",
        ),
    ],
)
def test_what_contradicts_float8_is_refused_by_name(changes, words):
    with pytest.raises(ValidationError, match=words):
        Params(**{"float8": True, "use_gpu": True} | changes)


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large", "giant"])
def test_every_named_size_can_have_float8_and_it_makes_another_result(size):
    params = Params(float8=True, use_gpu=True, network={"size": size})
    assert semantic(params) != semantic(params.model_copy(update={"float8": False}))


def test_a_plan_says_why_float8_cannot_run(monkeypatch):
    params = Params(float8=True, use_gpu=True)
    monkeypatch.setattr(float8, "unavailable", lambda: "a card has compute capability 8.0")
    assert pretrain._requires(params, {}) == (
        "train.float8: a card has compute capability 8.0; or set train.float8=false"
    )
    assert pretrain._requires(params.model_copy(update={"float8": False}), {}) is None
