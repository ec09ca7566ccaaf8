"""A fine-tuning on several workers: the same losses and the same metrics as on one.

The workers are processes of a gloo group, without Ray.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pipelines.finetune.finetune_task import FinetuneTask
from tests.pipelines.finetune.jobs import job
from tests.processes import run_processes

pytestmark = pytest.mark.slow

KINDS = {
    "retrieval": {},
    "dual": {},
    "linear": {},
    "mixed": {"task": {"mixup": 0.8, "cutmix": 1.0}},
    "several labels": {},
    "vqa": {},
    "nlvr2": {},
    "sentences": {},
    "numbers": {},
}
MICRO_BATCHES = {1: 16, 2: 4, 4: 4}
"By number of workers; the sizes differ from a worker's part of the batch of 16."


def trained(rank: int, folder: Path, num_workers: int) -> None:
    """Train every task for some steps; write the metrics of each step, and of a small split."""
    session = SimpleNamespace(
        rank=rank, num_workers=num_workers, num_threads=1, device=torch.device("cpu"),
        has_checkpoint=lambda: False,
    )  # fmt: skip
    autocast = torch.autocast("cpu", enabled=False)
    found = {}
    for kind, changes in KINDS.items():
        name = "linear" if kind == "mixed" else kind
        made = job(
            folder / kind.replace(" ", "_"), name, micro_batch=MICRO_BATCHES[num_workers], **changes
        )
        torch.manual_seed(made.seed)
        task = FinetuneTask(made, session)  # type: ignore[arg-type]
        found[kind] = [
            task.step(task.batches(step), step, 1e-3, autocast).metrics for step in range(4)
        ]
    if rank == num_workers - 1:
        (folder / f"{num_workers}.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def curves(tmp_path_factory):
    """The metrics of each step by number of workers and task."""
    folder = tmp_path_factory.mktemp("workers")
    for num_workers in MICRO_BATCHES:
        run_processes(num_workers, trained, folder, num_workers)
    return {n: json.loads((folder / f"{n}.json").read_text()) for n in MICRO_BATCHES}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_workers", [2, 4])
def test_the_losses_do_not_depend_on_the_number_of_workers(curves, kind, num_workers):
    alone, together = curves[1][kind], curves[num_workers][kind]
    assert alone[0]["loss"] != alone[-1]["loss"]
    for name in ("loss", "grad_norm"):
        expected = [metrics[name] for metrics in alone]
        assert [metrics[name] for metrics in together] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_workers", [2, 4])
def test_every_worker_has_the_metrics_of_the_whole_dev_split(curves, kind, num_workers):
    alone, together = curves[1][kind], curves[num_workers][kind]
    for before, now in zip(alone, together, strict=True):
        assert now.keys() == before.keys()
        dev = {name: value for name, value in before.items() if name.startswith("dev/")}
        assert {name: now[name] for name in dev} == pytest.approx(dev, abs=1e-4)
    assert sum(any(n.startswith("dev/") for n in metrics) for metrics in alone) == 2
