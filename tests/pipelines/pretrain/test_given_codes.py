"""A training step predicts given codes, whose number is not that of VQ-KD's."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestration import Dataset, Output
from orchestration.storage.store import Store
from pipelines.pretrain.training_task import PretrainTask
from pipelines.tokens import given_codes
from tests.committing import commit_outputs
from tests.in_process import run_in_process
from tests.pipelines.pretrain.small_job import CONFIG, NUM_VIEWS, Here, images, make_job, take_step
from tests.pipelines.tokens.test_given_codes import token_stages

NUM_CODES, NUM_ROWS = 9000, 48


def test_the_first_loss_on_given_codes_is_the_logarithm_of_their_number(tmp_path):
    rng, table, num = np.random.default_rng(5), images(NUM_ROWS), CONFIG.num_patches
    rows = [
        {"sample_id": f"row/{i}", "view": view, "codes": rng.integers(0, NUM_CODES, num).tolist()}
        for i in range(NUM_ROWS)
        for view in range(NUM_VIEWS)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "codes.parquet")
    tokens = Store(tmp_path / "image_tokens")
    commit_outputs(tokens, [Output(NUM_ROWS, {"train": table, "held_out": table.slice(0, 0)})])
    params = given_codes.Params(file=str(tmp_path / "codes.parquet"), num_codes=NUM_CODES)
    # Small row groups, as each substream needs one.
    stage = given_codes.stage(params, tokens=token_stages()["images"])
    run_in_process(stage, Store(tmp_path / "given"), {"image_tokens": tokens})
    job = make_job(tmp_path, NUM_ROWS, texts_per_step=0, pairs_per_step=0)
    job = replace(
        job,
        datasets={**job.datasets, "image": Dataset.open(Store(tmp_path / "given"), "train")},
        config=replace(CONFIG, num_codes=NUM_CODES),
        tokenizer=None,
    )
    task = PretrainTask(job, Here())
    codes = {tuple(row["codes"]) for row in rows}
    for batch in task.batches(0):
        assert {tuple(some) for some in batch.codes.tolist()} <= codes
    loss = take_step(task, 0).metrics["loss/mim"]
    assert loss == pytest.approx(np.log(NUM_CODES), abs=0.5)
