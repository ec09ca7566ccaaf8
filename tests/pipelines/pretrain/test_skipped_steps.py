"""Skipped steps of a pretraining: the record names the samples, and no record ends a training."""

import json
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load

from orchestration.errors import StoreError
from orchestration.storage.store import Store
from pipelines.pretrain import skipped_steps
from pipelines.pretrain.sample_ids import sample_ids
from pipelines.pretrain.skipped_steps import skipped_files
from pipelines.pretrain.training_task import PretrainJob, PretrainTask
from pipelines.training.history import read_curve
from pipelines.training.loop import train
from tests.one_worker import OneWorker, last_checkpoint
from tests.pipelines.pretrain.small_job import Here, make_job, tables, take_step


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return make_job(tmp_path_factory.mktemp("job"))


@pytest.fixture
def task(job, tmp_path):
    torch.manual_seed(0)
    return PretrainTask(
        replace(job, folder=Store(tmp_path)), Here(data_step=lambda step: step + 100)
    )


def break_sample(micro_batch, index, batches):
    """Make the inputs of one sample not finite."""
    batches[micro_batch].residual_scale[0, 0, index] = torch.nan


def surprise(batches):
    """Ask texts for a token that is rare."""
    for batch in batches:
        if batch.stream == "text":
            batch.text_targets = torch.full_like(batch.text_targets, 59)


def record(folder, name):
    path = folder / "skipped" / name / "worker-00000-of-00001"
    return (
        json.loads(path.with_suffix(".json").read_text()),
        pq.read_table(path.with_suffix(".parquet")),
        load(path.with_suffix(".safetensors").read_bytes())
        if path.with_suffix(".safetensors").exists()
        else {},
    )


def test_the_ids_are_those_of_the_rows_that_fill_the_batches(job):
    """The pixels, texts and captions of every sample are found again from its row of ids."""
    task = PretrainTask(job, Here())
    content = {stream: table.to_pylist() for stream, table in tables(48).items()}
    parts = {stream: dataset.parts for stream, dataset in job.datasets.items()}
    batches, ids = task.batches(9), sample_ids(task.feed, 9)
    assert sorted(ids["slot"].to_pylist()) == sorted(list(range(8)) * 3)
    for row in ids.to_pylist():
        batch, i = batches[row["micro_batch"]], row["index"]
        assert batch.stream == row["stream"]
        part = [part.path for part in parts[row["stream"]]].index(row["file"])
        source = content[row["stream"]][24 * part + 4 * row["row_group"] + row["row"]]
        if row["stream"] == "text":
            assert batch.text_targets[i].tolist() == source["ids"]
            assert row["text"] == task.feed.builders["text"].text.decode(source["ids"])
            continue
        assert (row["sample_id"], row["source"]) == (source["sample_id"], source["source"])
        codes = np.array(source["codes"]).reshape(2, -1)
        assert batch.codes[i].tolist() == codes[row["view"]].tolist()
        if row["stream"] == "pair":
            caption = source["captions"][row["caption"]][:10]
            assert batch.text_targets[i].tolist()[1 : 1 + len(caption)] == caption


def test_a_sample_that_is_not_finite_is_named_with_its_tensors(task, tmp_path):
    batch = task.batches(102)[5]
    index = int(batch.image_mask.any(1).nonzero()[-1])
    outcome = take_step(task, 2, partial(break_sample, 5, index))
    assert outcome.skipped and not outcome.spiked
    assert outcome.listed_in == f"{tmp_path}/skipped"
    described, samples, tensors = record(tmp_path, "step-00000003-data-00000103")
    assert (described["step"], described["data_step"]) == (3, 103)
    assert described["fault"] == "loss" and described["loss"]["mvlm_image"] == "nan"
    ids = sample_ids(task.feed, 102)
    assert samples.select(ids.column_names).equals(ids)
    [suspect] = described["not_finite"]
    assert (suspect["micro_batch"], suspect["index"], suspect["stream"]) == (5, index, "pair")
    assert suspect["sample_id"] == ids["sample_id"][20 + index].as_py()
    assert samples["is_finite"].to_pylist() == [i != 20 + index for i in range(24)]
    finite = samples.filter(pc.field("is_finite"))
    assert min(finite["loss"].to_pylist()) >= 0
    assert {name.partition(".pair.")[0] for name in tensors} == {"5"}
    assert torch.equal(tensors["5.pair.pixels"], batch.pixels)
    assert torch.equal(tensors["5.pair.text_ids"], batch.text_ids)
    assert skipped_files(Store(tmp_path)) == sorted(
        f"skipped/step-00000003-data-00000103/worker-00000-of-00001.{suffix}"
        for suffix in ("json", "parquet", "safetensors")
    )


def test_a_loss_that_is_not_finite_skips_a_step_with_a_finite_gradient(task):
    """The logit of one class is -inf: its loss is infinite, the gradient of the others is not."""
    targets = torch.cat([b.codes.flatten() for b in task.batches(100) if b.stream == "image"])
    with torch.no_grad():
        task.network.mim_head.bias[int(targets.mode().values)] = -torch.inf
    before = {name: p.clone() for name, p in task.network.named_parameters()}
    outcome = take_step(task, 0)
    assert outcome.metrics["loss/mim"] == torch.inf and np.isfinite(outcome.metrics["grad_norm"])
    assert outcome.skipped
    assert all(torch.equal(p, before[name]) for name, p in task.network.named_parameters())


def test_tensors_and_records_are_limited(task, tmp_path, monkeypatch):
    monkeypatch.setattr(skipped_steps, "MAX_DUMPS", 1)
    monkeypatch.setattr(skipped_steps, "MAX_RECORDS", 2)
    monkeypatch.setattr(skipped_steps, "MAX_DUMP_BYTES", 9_000)
    for step in range(3):
        take_step(task, step, partial(break_sample, 0, 2), partial(break_sample, 1, 0))
    names = [f"step-0000000{i}-data-0000010{i}" for i in (1, 2)]
    assert Store(tmp_path).folders("skipped") == names
    tensors = record(tmp_path, names[0])[2]
    assert tensors["0.image.index"].tolist() == [2] and tensors["0.image.pixels"].shape[0] == 1
    assert sum(tensor.nbytes for tensor in tensors.values()) < 9_000
    described, _, tensors = record(tmp_path, names[1])
    assert described["num_not_finite"] == 2 and not tensors


@pytest.mark.parametrize("method", ["write_bytes", "folders"])
def test_a_store_that_fails_ends_no_training(task, method, monkeypatch, caplog):
    def fail(*_):
        raise StoreError("s3://b/k: 503")

    monkeypatch.setattr(Store, method, fail)
    assert take_step(task, 0, partial(break_sample, 0, 0)).skipped
    assert "samples of the skipped step 1 are not recorded: s3://b/k: 503" in caplog.text
    monkeypatch.undo()
    assert not take_step(task, 1).skipped


def test_a_spike_is_skipped_and_recorded_without_tensors(job, tmp_path):
    params = job.params.model_copy(update={"spike_factor": 1.5, "spike_window": 3})
    task = PretrainTask(replace(job, folder=Store(tmp_path), params=params), Here())

    with torch.no_grad():
        task.network.mlm_head.bias[59] = -9
    weights = [take_step(task, step) for step in range(3)]
    assert not any(outcome.spiked for outcome in weights)
    before = task.network.mlm_head.weight.clone()
    outcome = take_step(task, 3, surprise)
    assert outcome.spiked and not outcome.skipped
    assert torch.equal(task.network.mlm_head.weight, before)
    described, samples, tensors = record(tmp_path, "step-00000004")
    assert described["fault"] == "spike" and not tensors and not described["not_finite"]
    texts = samples.filter(pc.field("stream") == "text")
    assert min(texts["loss"].to_pylist()) > 9
    assert not take_step(task, 4).spiked


def test_the_norms_of_the_parts_add_up(task):
    metrics = take_step(task, 0).metrics
    parts = {name: value for name, value in metrics.items() if name.startswith("grad_norm/")}
    assert list(parts) == [
        f"grad_norm/{part}" for part in ("vision", "language", "vision_language", "heads", "shared")
    ]
    assert sum(value**2 for value in parts.values()) ** 0.5 == pytest.approx(metrics["grad_norm"])
    heads = [task.network.mlm_head.weight, task.network.mim_head.weight]
    heads += [task.network.mlm_head.bias, task.network.mim_head.bias]
    factor = min(task.job.params.max_grad_norm / metrics["grad_norm"], 1)
    expected = torch.cat([head.grad.flatten() for head in heads]).norm()
    assert parts["grad_norm/heads"] * factor == pytest.approx(float(expected), rel=1e-4)


@dataclass(frozen=True)
class Surprising(PretrainJob):
    """The texts of step 6 ask for a rare token."""

    def make_task(self, session):
        task = PretrainTask(self, session)
        made = task.batches

        def batches(step):
            found = made(step)
            if step == 6:
                surprise(found)
            return found

        task.batches = batches
        torch.nn.init.constant_(task.network.mlm_head.bias, -9.0)
        torch.nn.init.zeros_(task.network.mlm_head.bias[:25])
        return task


def test_spikes_are_the_same_after_a_resume(job, tmp_path):
    changes = {"spike_factor": 1.5, "spike_window": 4, "steps": 9, "checkpoint_every": 3}
    params = job.params.model_copy(update=changes | {"log_every": 1})
    curves = []
    for name in ("whole", "stopped"):
        folder = tmp_path / name
        made = Surprising(**vars(job) | {"params": params, "folder": Store(folder)})
        if name == "stopped":
            for step in (3, 6):
                with pytest.raises(KeyboardInterrupt):
                    train(OneWorker(folder, stop_after=step), made)
        train(OneWorker(folder), made)
        curves.append(read_curve(Store(folder), last_checkpoint(folder), print))
    whole, stopped = (pa.concat_tables(curve.tables()) for curve in curves)
    assert whole.equals(stopped)
    assert whole["spikes"].to_pylist() == [0, 0, 0, 0, 0, 0, 1, 0, 0]
    assert [(curve.num_spikes, curve.num_skipped) for curve in curves] == [(1, 0)] * 2
