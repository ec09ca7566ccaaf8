"""A pretraining from given weights goes on from its own checkpoints, wherever the weights lie."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from model import BEiT3
from orchestration.errors import RecipeError
from orchestration.fingerprint import semantic
from orchestration.storage.store import Store
from pipelines.open_recipe import open_recipe
from pipelines.pretrain.start_from import WEIGHTS_FILE
from pipelines.training.loop import train
from tests.one_worker import OneWorker
from tests.pipelines.pretrain.small_job import CONFIG, make_job
from tests.pipelines.pretrain.test_start_from import checkpoint, config_of, workdir


def test_a_resumed_training_does_not_read_its_start_again(tmp_path):
    """The stopped one has no start any more; it ends as the whole one, which began from it."""
    job = make_job(tmp_path, steps=4, checkpoint_every=2, start_from="weights.pth", log_every=1)
    torch.manual_seed(5)
    given = BEiT3(CONFIG).state_dict()
    losses = {}
    for name in ("whole", "stopped", "fresh"):
        folder = tmp_path / name
        (folder / WEIGHTS_FILE).parent.mkdir(parents=True)
        save_file(given, folder / WEIGHTS_FILE)
        here = replace(job, folder=Store(folder))
        if name == "fresh":
            here = replace(here, params=job.params.model_copy(update={"start_from": None}))
        if name == "stopped":
            with pytest.raises(KeyboardInterrupt):
                train(OneWorker(folder, stop_after=2), here)
            (folder / WEIGHTS_FILE).unlink()
        session = OneWorker(folder)
        train(session, here)
        losses[name] = session.metrics[4]
    assert losses["stopped"] == losses["whole"] != losses["fresh"]


def opened(root: Path, start: Path | str):
    settings = [f"train.start_from={start}"]
    return open_recipe("tiny", str(root), settings, Console(quiet=True)).recipe.train


def test_a_training_that_completes_meanwhile_does_not_change_the_start(tmp_path):
    """The plan takes the newest training of a workdir; a later one there is another choice."""
    workdir(tmp_path / "before")
    taken = opened(tmp_path / "run", tmp_path / "before")
    assert taken.start_from == f"{tmp_path}/before/pretrain/p0/ray_train/step_00000020"
    planned = semantic(taken)
    record = {"name": "t", "started_at": 2.0, "stages": {"pretrain": "p1"}}
    (tmp_path / "before" / "workflows" / "b").mkdir()
    (tmp_path / "before" / "workflows" / "b" / "record.json").write_text(json.dumps(record))
    checkpoint(tmp_path / "before" / "pretrain" / "p1", 5, config_of())
    assert semantic(taken) == planned


def test_a_workdir_does_not_start_from_itself(tmp_path):
    """Its newest training is the one that starts, as soon as it is recorded."""
    workdir(tmp_path / "run")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    last = "pretrain/p0/ray_train/step_00000020"
    for place in ("run", "link"):
        with pytest.raises(RecipeError, match=rf"workdir of this run.*name a checkpoint.*{last}$"):
            opened(tmp_path / "run", tmp_path / place)
    assert opened(tmp_path / "run", tmp_path / "run" / last).start_from.endswith(last)
