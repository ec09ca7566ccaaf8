"""Evaluation of a checkpoint beside its training: what is due, what is said, and the numbers."""

import io
import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray
import torch
from ray._private import state
from rich.console import Console

from model import BEiT3
from model.training.objectives import predict
from model.training.optimizer import adamw
from orchestration import Output
from orchestration.storage.store import Store
from pipelines.pretrain import evaluate_while_training
from pipelines.pretrain.checkpoints import NETWORK_FILE
from pipelines.pretrain.evaluate_while_training import CheckpointEvaluator, Evaluation
from pipelines.pretrain.evaluation.params import Params
from pipelines.pretrain.params import Params as PretrainParams
from pipelines.pretrain.samples import SampleBuilder
from pipelines.tokens.text_tokenizer import MODEL_FILE
from pipelines.training.checkpoints import Saver
from pipelines.training.history import History
from tests.committing import commit_outputs, commit_tables
from tests.one_worker import OneWorker, last_checkpoint
from tests.pipelines.pretrain.test_feed import NETWORK, PARAMS, tokens
from tokenizer.text import TextTokenizer, train

HELD_OUT = 8
FREE = "available_resources_per_node"


class Asked:
    """What the evaluator uses of a context; notes metrics and what is printed."""

    def __init__(self) -> None:
        self.stage = SimpleNamespace(name="pretrain")
        self.stopping = threading.Event()
        self.out = io.StringIO()
        self.progress = SimpleNamespace(console=Console(file=self.out, width=300))
        self.found: dict[int, dict[str, float]] = {}
        self.log = SimpleNamespace(metrics=self.noted, flush=lambda: None)

    def noted(self, values: dict[str, float], step: int) -> None:
        self.found[step] = values


@pytest.fixture
def evaluation(tmp_path) -> Evaluation:
    words = ["a red circle, a blue square.", "the blue circle; one red square!"] * 30
    model = train(words, vocab_size=25, character_coverage=1.0)
    inputs = {}
    for stream, table in tokens(24).items():
        labels = pa.array([f"class {i % 2}" for i in range(table.num_rows)])
        table = table.append_column("label", labels)
        sources = pa.array([["coco", "sbu"][i % 2] for i in range(table.num_rows)])
        table = table.append_column("source", sources)
        held_out, kept = table.slice(0, HELD_OUT), table.slice(HELD_OUT)
        output = Output(table.num_rows, {"train": kept, "held_out": held_out})
        inputs[stream] = commit_outputs(Store(tmp_path / stream), [output])
    text = commit_tables(Store(tmp_path / "words"), [], row_group_rows=1, files={MODEL_FILE: model})
    params = Params(batch_size=4, num_neighbors=3)
    return Evaluation(params, PARAMS, 5, inputs, text)


@pytest.fixture
def checkpoint(tmp_path) -> Store:
    """A checkpoint of step 7 of a network with random weights."""
    torch.manual_seed(0)
    network = BEiT3(NETWORK)
    session = OneWorker(tmp_path / "pretrain")
    history = History(session.folder, 1)
    history.step = 7
    optimizer = adamw(network, weight_decay=0, betas=(0.9, 0.98), eps=1e-6)
    config = json.dumps(NETWORK.to_dict())

    def write_files(folder: Path) -> None:
        (folder / NETWORK_FILE).write_text(config)

    Saver(session, network, optimizer, history, write_files).save(is_last=True)
    return last_checkpoint(Path(session.folder.uri))


def evaluator(context: Asked, evaluation: Any, every: int = 7, steps: int = 21) -> Any:
    return CheckpointEvaluator(context, evaluation, every, steps)  # type: ignore[arg-type]


def test_only_the_checkpoints_at_multiples_before_the_last_step_are_evaluated(monkeypatch):
    context = Asked()
    made = evaluator(context, None)
    monkeypatch.setattr(made, "_missing", lambda: None)
    monkeypatch.setattr(made, "_numbers", lambda checkpoint, ended: {"loss/mlm": 2.5, "n": 1.0})
    for step in (5, 7, 14, 15, 21):
        made(Store(f"/tmp/step_{step:08d}"), threading.Event())
    assert sorted(context.found) == [7, 14]
    assert context.found[7] == {"held_out/loss/mlm": 2.5, "held_out/n": 1.0}
    assert "pretrain: step 7, held-out rows: loss/mlm 2.5" in context.out.getvalue()


def test_checkpoints_that_are_removed_before_their_turn_are_said(monkeypatch):
    """Evaluations may take longer than the steps between them."""
    context = Asked()
    made = CheckpointEvaluator(context, None, 10, 90, 20)  # type: ignore[arg-type]
    monkeypatch.setattr(made, "_missing", lambda: None)
    monkeypatch.setattr(made, "_numbers", lambda checkpoint, ended: {"loss/mlm": 2.5})
    for step in (25, 30, 55, 60, 85):
        made(Store(f"/tmp/step_{step:08d}"), threading.Event())
    said = [line for line in context.out.getvalue().splitlines() if "removed" in line]
    assert [line.split(", as")[0] for line in said] == [
        "pretrain: step 40 to 50, not evaluated",
        "pretrain: step 70 to 80, not evaluated",
    ]
    assert sorted(context.found) == [30, 60]


def test_a_cluster_without_room_and_a_failure_are_said_and_end_nothing(monkeypatch, evaluation):
    context = Asked()
    made = evaluator(context, evaluation)
    monkeypatch.setattr(state, FREE, lambda: {"a": {"GPU": 1.0}})
    made(Store("/tmp/step_00000007"), threading.Event())
    assert "no node has evaluate.cpus_per_actor = 1 free beside" in context.out.getvalue()
    monkeypatch.setattr(state, FREE, lambda: {"a": {"CPU": 2.0}})

    def fails(checkpoint, ended):
        raise OSError("the disk is gone")

    monkeypatch.setattr(made, "_numbers", fails)
    made(Store("/tmp/step_00000007"), threading.Event())
    assert "step 7, not evaluated" in context.out.getvalue()
    assert "the disk is gone" in context.out.getvalue()

    def lost() -> dict[str, float]:
        raise ConnectionError("the cluster does not answer")

    monkeypatch.setattr(state, FREE, lost)
    made(Store("/tmp/step_00000014"), threading.Event())
    assert "step 14, not evaluated" in context.out.getvalue()
    assert "the cluster does not answer" in context.out.getvalue()
    assert context.found == {}


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([{"CPU": 1.0, "GPU": 1.0}] * 4, "cpus_per_actor = 4 and evaluate.gpus_per_actor = 0.5"),
        ([{"CPU": 4.0}, {"CPU": 3.0, "GPU": 1.0}], "no node has evaluate.cpus_per_actor = 4"),
        ([], "no node has"),
        ([{"CPU": 1.0}, {"CPU": 4.0, "GPU": 0.5}], None),
    ],
)
def test_an_evaluation_needs_room_on_one_node(monkeypatch, nodes, words):
    """Ray would wait without end for a task that fits on no node, though the sum is enough."""
    monkeypatch.setattr(state, FREE, lambda: dict(enumerate(nodes)))
    params = Params(cpus_per_actor=4, gpus_per_actor=0.5)
    found = evaluator(Asked(), SimpleNamespace(params=params))._missing()
    assert found is None if words is None else words in found


def test_the_numbers_are_those_of_the_checkpoint_s_network_on_the_held_out_rows(
    evaluation, checkpoint
):
    made = evaluate_while_training
    slices = made.evaluation_slices(evaluation.inputs, evaluation.params, evaluation.seed)
    found = made.evaluate_checkpoint(checkpoint, evaluation, slices)
    assert found["num_targets/mim"] == HELD_OUT * round(0.4 * 16)
    assert 0 <= found["accuracy/knn"] <= 1
    torch.manual_seed(0)
    network = BEiT3(NETWORK).eval()
    uniform = np.log(NETWORK.num_codes)
    assert found["loss/mim"] == pytest.approx(uniform, rel=0.2)
    # Other masks of the same rows give nearly the same loss of the same weights.
    text = TextTokenizer.load(evaluation.text.fetch(MODEL_FILE))
    builder = SampleBuilder("image", NETWORK, text, PARAMS, 3)
    rows = evaluation.inputs["image"].table("held_out").read()
    batch = builder.build(rows, 0, np.arange(HELD_OUT)).to(torch.device("cpu"))
    batch.residual_scale = None
    with torch.no_grad():
        mine = predict(network, batch)["mim"]
    assert found["loss/mim"] == pytest.approx(float(mine.loss_sum) / len(mine.targets), rel=0.05)


@pytest.mark.parametrize("every", [None, 4])
def test_a_checkpoint_is_saved_where_it_is_evaluated(every):
    params = PretrainParams(steps=12, warmup_steps=1, checkpoint_every=6, evaluate_every=every)
    saved = [step for step in range(1, 13) if params.saves_after(step)]
    assert saved == ([6, 12] if every is None else [4, 6, 8, 12])


@pytest.mark.slow
def test_a_ray_task_evaluates_a_checkpoint_and_ends_with_the_training(evaluation, checkpoint):
    context = Asked()
    made = evaluator(context, evaluation)
    ray.shutdown()  # a test before this one may have left its session
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        made(checkpoint, threading.Event())
        assert context.found[7]["held_out/num_targets/mim"] == HELD_OUT * round(0.4 * 16)
        ended, other = threading.Event(), Asked()
        ended.set()
        other.stopping.set()  # the user waits for no evaluation
        evaluator(other, evaluation)(checkpoint, ended)
        assert other.found == {}
        assert "not evaluated, as the training has ended meanwhile" in other.out.getvalue()
        gone = Asked()
        evaluator(gone, evaluation)(checkpoint.sub("../step_00000014"), threading.Event())
        assert gone.found == {} and "step 14, not evaluated" in gone.out.getvalue()
    finally:
        ray.shutdown()
