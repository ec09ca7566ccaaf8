"""The curve of a pretraining is the same for any workers, micro-batches and sharding.

The real feed, network, objectives and step run in processes that exchange tensors by gloo.
"""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipelines.pretrain.sample_ids import sample_ids
from pipelines.pretrain.training_task import PretrainJob, PretrainTask
from tests.pipelines.pretrain.small_job import Here, make_job, take_step
from tests.processes import run_processes

pytestmark = pytest.mark.slow

STEPS = 30
LAYOUTS = {
    1: [(1, "none"), (2, "none"), (8, "none")],
    2: [(1, "full"), (2, "none"), (8, "full")],
    4: [(1, "none"), (8, "full")],
}
"Size of a micro-batch, and sharding, by the number of workers."


def with_layout(job: PretrainJob, rank: int, num_workers: int, layout) -> PretrainTask:
    changes = dict(zip(("micro_batch", "sharding"), layout, strict=True))
    params = job.params.model_copy(update=changes | {"num_workers": num_workers})
    torch.manual_seed(job.seed)
    return PretrainTask(replace(job, params=params), Here(rank, num_workers))


def curves(rank: int, job: PretrainJob, num_workers: int, layouts, folder: Path) -> None:
    """Train in each layout; save the metrics of each step and this worker's samples."""
    torch.set_num_threads(1)
    found = {}
    for layout in layouts:
        task = with_layout(job, rank, num_workers, layout)
        metrics, samples = [], []
        for step in range(STEPS):
            metrics.append(take_step(task, step).metrics)
            ids = sample_ids(task.feed, step).drop_columns(["micro_batch", "index"])
            samples.append(sorted(map(str, ids.to_pylist())))
        found[layout] = {"metrics": metrics, "samples": samples}
    torch.save(found, folder / f"{num_workers}-{rank}.pt")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Metrics, and samples of all workers together, by step; for each number of workers."""
    folder = tmp_path_factory.mktemp("curves")
    job = make_job(folder, steps=STEPS)
    curves(0, job, 1, LAYOUTS[1], folder)
    for number in (2, 4):
        run_processes(number, curves, job, number, LAYOUTS[number], folder)
    found = {}
    for number in LAYOUTS:
        workers = [torch.load(folder / f"{number}-{rank}.pt") for rank in range(number)]
        for layout, first in workers[0].items():
            samples = [
                sorted(itertools.chain(*(worker[layout]["samples"][step] for worker in workers)))
                for step in range(STEPS)
            ]
            assert all(worker[layout]["metrics"] == first["metrics"] for worker in workers)
            found[number, *layout] = {"metrics": first["metrics"], "samples": samples}
    return found


def test_all_layouts_have_one_curve(runs):
    expected = runs[1, 8, "none"]["metrics"]
    losses = [metrics["loss/mlm"] for metrics in expected]
    assert losses[-1] < losses[0]
    for layout, found in runs.items():
        for step, metrics in enumerate(found["metrics"]):
            assert metrics == pytest.approx(expected[step], rel=1e-5), (layout, step)


def test_all_layouts_have_the_same_samples_in_each_step(runs):
    expected = runs[1, 8, "none"]["samples"]
    assert all(len(samples) == len(set(samples)) == 24 for samples in expected)
    assert all(found["samples"] == expected for found in runs.values())
