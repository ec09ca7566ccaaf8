"""Steps of several workers with the real feed: exact counts, and a bad sample of one worker."""

import io
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from orchestration import Recipe, Stage, Workflow
from orchestration.errors import StageError
from orchestration.recipe import ClusterParams
from orchestration.storage.store import Store
from orchestration.training import fit
from pipelines.pretrain.sample_ids import sample_ids
from pipelines.pretrain.training_task import PretrainJob, PretrainTask
from pipelines.training.loop import train
from tests.pipelines.pretrain.small_job import CONFIG, Here, make_job, take_step
from tests.processes import run_processes

pytestmark = pytest.mark.slow


def breaking(rank: int, job: PretrainJob, folder) -> None:
    """Break a pair of the second worker in step 1; save what each worker finds."""

    def break_pair(batches):
        if rank == 1:
            batches[2].residual_scale[1, 0, 1] = torch.inf

    torch.manual_seed(rank)
    task = PretrainTask(job, Here(rank, 2))
    outcomes = [take_step(task, step, *([break_pair] if step == 1 else [])) for step in range(3)]
    weights = torch.cat([p.full_tensor().flatten() for p in task.network.parameters()])
    ids = sample_ids(task.feed, 1).to_pylist()
    torch.save(
        ([outcome.skipped for outcome in outcomes], weights.detach(), ids[9]), folder / f"{rank}.pt"
    )


@pytest.mark.parametrize("sharding", ["none", "full"])
def test_a_bad_sample_of_one_worker_skips_the_step_of_all_and_is_named(tmp_path, sharding):
    job = make_job(tmp_path, num_workers=2, sharding=sharding)
    run_processes(2, breaking, job, tmp_path)
    one, two = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert one[0] == two[0] == [False, True, False]
    assert torch.equal(one[1], two[1]) and one[1].isfinite().all()
    records = tmp_path / "pretrain" / "skipped" / "step-00000002"
    first, second = (
        json.loads((records / f"worker-0000{rank}-of-00002.json").read_text()) for rank in range(2)
    )
    assert first["not_finite"] == [] and first["loss"] == second["loss"]
    assert not (records / "worker-00000-of-00002.safetensors").exists()
    assert (records / "worker-00001-of-00002.safetensors").exists()
    [suspect] = second["not_finite"]
    assert {name: suspect[name] for name in two[2]} == two[2]
    slots = [
        pq.read_table(records / f"worker-0000{rank}-of-00002.parquet").select(["stream", "slot"])
        for rank in range(2)
    ]
    counts = Counter(tuple(row.values()) for table in slots for row in table.to_pylist())
    assert len(counts) == 24 and set(counts.values()) == {1}


def test_a_step_has_2048_samples_of_each_stream(tmp_path):
    """The paper's global batch in 256 substreams on four workers, with a very small network."""
    job = make_job(
        tmp_path, num_rows=2560, row_group_rows=5, images_per_step=2048, texts_per_step=2048,
        pairs_per_step=2048, substreams=256, num_workers=4, micro_batch=64,
    )  # fmt: skip
    small = replace(CONFIG, width=16, depth=1, ffn_width=16)
    job = replace(job, config=small)
    run_processes(4, whole_step, job, tmp_path)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(4)]
    for stream in ("image", "text", "pair"):
        slots = np.concatenate([counts[stream] for counts, _ in found])
        assert sorted(slots.tolist()) == list(range(2048))
        assert [len(counts[stream]) for counts, _ in found] == [512] * 4
    assert all(metrics == found[0][1] for _, metrics in found)
    # log(num_codes) and log(vocab_size) are the losses of a network that knows nothing.
    assert found[0][1]["loss/mim"] == pytest.approx(np.log(50), abs=0.2)
    assert found[0][1]["loss/mlm"] == pytest.approx(np.log(60), abs=0.2)


def whole_step(rank: int, job: PretrainJob, folder) -> None:
    task = PretrainTask(job, Here(rank, 4))
    batches = task.batches(0)
    assert Counter(batch.stream for batch in batches) == {"image": 8, "text": 8, "pair": 8}
    assert all(batch.num_samples == 64 for batch in batches)
    metrics = take_step(task, 0).metrics
    ids = sample_ids(task.feed, 0)
    streams, slots = np.array(ids["stream"].to_pylist()), ids["slot"].to_numpy()
    counts = {stream: slots[streams == stream] for stream in ("image", "text", "pair")}
    torch.save((counts, metrics), folder / f"{rank}.pt")


class Broken(PretrainJob):
    """All steps from the third on have an image that is not finite on the second worker."""

    def make_task(self, session):
        task = PretrainTask(self, session)
        made, rank, folder = task.batches, session.rank, self.folder

        def batches(step):
            found = made(step)
            folder.write_bytes(f"asked/{step}-{rank}-{torch.randint(1 << 40, ()).item()}", b"")
            if step >= 2 and rank == 1:
                found[0].residual_scale[0, 0, 0] = torch.nan
            return found

        task.batches = batches
        return task


def test_a_pretraining_of_two_workers_that_diverges_ends_once_and_lists_its_samples(tmp_path):
    made = make_job(tmp_path, num_workers=2, max_skipped_steps=3, checkpoint_every=2, log_every=1)
    folders = []

    def run(context):
        folders.append(context.folder)
        fit(context, made.params, train, Broken(**vars(made) | {"folder": context.folder}))

    recipe = Recipe(name="toy", cluster=ClusterParams(num_cpus=3, object_store_mb=128))
    workflow = Workflow(recipe, (Stage("pretrain", run, made.params),))
    with pytest.raises(StageError, match="not finite in 3 consecutive steps up to step 5") as error:
        workflow.run(Store(tmp_path / "work"), Console(file=io.StringIO()))
    [folder] = folders
    assert f"their samples are listed in {folder.uri}/skipped" in str(error.value)
    assert folder.folders("skipped") == [f"step-0000000{step}" for step in (3, 4, 5)]
    asked = Counter(name.rsplit("-", 1)[0] for name in folder.names("asked", ""))
    assert set(asked.values()) == {1}, "no step is replayed"
