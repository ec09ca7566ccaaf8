"""Records of skipped steps of workers that do not divide the substreams."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load

from orchestration.storage.store import Store
from pipelines.pretrain.training_task import PretrainTask
from tests.pipelines.pretrain.small_job import Here, make_job, take_step

STEP = 9


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return make_job(tmp_path_factory.mktemp("job"))


def skipped(job, folder, rank, num_workers, micro_batch, broken):
    """Skip a step of one worker; return the worker's samples and the tensors of its record."""
    params = job.params.model_copy(update={"micro_batch": micro_batch})
    torch.manual_seed(0)
    made = PretrainTask(
        replace(job, params=params, folder=Store(folder)), Here(rank=rank, num_workers=num_workers)
    )

    def break_sample(batches):
        micro, index = broken(batches)
        batches[micro].residual_scale[0, 0, index] = torch.nan

    assert take_step(made, STEP, break_sample).skipped
    path = folder / "skipped" / f"step-{STEP + 1:08d}" / f"worker-{rank:05d}-of-{num_workers:05d}"
    tensors = path.with_suffix(".safetensors")
    return pq.read_table(path.with_suffix(".parquet")), (
        load(tensors.read_bytes()) if tensors.exists() else {}
    )


def last_of_pairs(batches):
    """The last sample that has something to predict."""
    number = max(
        i
        for i, b in enumerate(batches)
        if b.stream == "pair" and (b.text_mask.any() or b.image_mask.any())
    )
    return number, batches[number].num_samples - 1


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 4, 8])
def test_three_workers_with_four_substreams_record_the_samples_of_one(job, tmp_path, micro_batch):
    whole, _ = skipped(job, tmp_path / "one", 0, 1, 8, lambda _: (2, 7))
    parts = []
    for rank in range(3):
        found, tensors = skipped(job, tmp_path / "three", rank, 3, micro_batch, last_of_pairs)
        last = found["is_finite"].to_pylist()
        assert last == [True] * (len(last) - 1) + [False]
        assert {name.split(".")[0] for name in tensors} == {str(found["micro_batch"][-1])}
        parts.append(found)
    assert [len(part) for part in parts] == [12, 6, 6]
    together = pa.concat_tables(parts).sort_by([("stream", "ascending"), ("slot", "ascending")])
    whole = whole.sort_by([("stream", "ascending"), ("slot", "ascending")])
    place = ["micro_batch", "index", "loss", "is_finite"]
    assert together.drop_columns(place).equals(whole.drop_columns(place))
    both = pc.and_(together["is_finite"], whole["is_finite"])
    assert together.filter(both)["loss"].to_pylist() == pytest.approx(
        whole.filter(both)["loss"].to_pylist(), rel=1e-4
    )
    assert pc.sum(both).as_py() >= 20


def test_a_micro_batch_without_samples_of_its_own_is_no_suspect(job, tmp_path):
    """Its gradient is not finite if the weights are not; its rows stand in the first one."""

    def empty(batches):
        return len(batches) - 1, 0

    found, tensors = skipped(job, tmp_path, 1, 3, 2, empty)
    assert found["is_finite"].to_pylist() == [True] * 6
    assert not tensors
