"""What ends a training says where the fault is."""

import pytest
import torch

from orchestration.errors import StageError
from pipelines.pretrain.params import Params
from pipelines.training import guards


def test_copies_that_differ_end_the_training_with_the_weights_and_the_workers(monkeypatch):
    monkeypatch.setattr(guards, "different_copy", lambda network: ("norm.both.weight", [3, 7]))
    with pytest.raises(
        StageError, match=r"after step 9 the weights norm.both.weight of worker 3, 7"
    ):
        guards.refuse_different_copies(torch.nn.Linear(1, 1), 9)


def test_copies_are_summed_in_fp32():
    with pytest.raises(ValueError, match="reduce_dtype = bf16 needs sharding = full"):
        Params(reduce_dtype="bf16", sharding="none")
    assert Params(reduce_dtype="bf16", sharding="full").reduce_dtype == "bf16"
