"""A fine-tuning that is interrupted, in any step, ends as one that is not: bit by bit, without Ray.

``tests/crashes/test_finetuning.py`` kills the processes of a whole run.
"""

import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.finetuning.kept_weights import KeptWeights
from pipelines.finetune.finetune_task import FinetuneJob, make_network
from pipelines.training.checkpoints import load_network_state
from pipelines.training.history import read_curve
from pipelines.training.loop import train
from tests.one_worker import OneWorker, last_checkpoint
from tests.pipelines.finetune.jobs import job

STEPS = 12
MOVING = {
    "vqa": None, "retrieval": 0.8, "captioning": None, "dual": 0.8, "linear": None, "nlvr2": None,
    "numbers": 0.8, "detection": 0.8, "segmentation": None,
}  # fmt: skip
"The decay of the moving average by task."


def trained(folder: Path, made: FinetuneJob, *stops: int) -> tuple[dict[str, Tensor], list[dict]]:
    """Train with interruptions; return the weights that are kept, and the curve."""
    folder.mkdir()
    for stop in stops:
        session = OneWorker(folder, stop_after=stop, save_after=range(1, STEPS + 1))
        with pytest.raises(KeyboardInterrupt):
            train(session, made)  # type: ignore[arg-type]
    train(OneWorker(folder), made)  # type: ignore[arg-type]
    last = last_checkpoint(folder)
    kept = KeptWeights(make_network(made.task, made.builder()), made.params.ema_decay)
    load_network_state(Path(last.uri), kept)
    curve = read_curve(OneWorker(folder).folder, last, print)
    return kept.state_dict(), [row for table in curve.tables() for row in table.to_pylist()]


@pytest.mark.parametrize("kind", MOVING)
def test_an_interrupted_fine_tuning_ends_with_the_same_weights_and_curve(tmp_path, kind):
    made = job(
        tmp_path / "inputs", kind, steps=STEPS, evaluations=4, ema_decay=MOVING[kind],
        checkpoint_every=STEPS,
    )  # fmt: skip
    weights, curve = trained(tmp_path / "calm", made)
    stops = sorted(random.Random(kind).sample(range(1, STEPS), 3))
    again, curve_again = trained(tmp_path / "interrupted", made, *stops)
    assert 0 < int(weights["best_step"]) <= STEPS
    assert again.keys() == weights.keys()
    assert all(torch.equal(again[name], weights[name]) for name in weights)
    assert curve_again == curve and len(curve) == STEPS
