"""A head that is evaluated as it is given: of the sizes of the recipe, or refused."""

from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save

from model.finetuning.task_networks import TaskNetwork
from orchestration.errors import StageError
from orchestration.storage.store import Store
from pipelines.finetune.finetune import write_start
from pipelines.finetune.finetune_task import FinetuneJob, make_network
from pipelines.finetune.start import MODEL_FILE, WEIGHTS_FILE
from pipelines.finetune.start_source import BEST_FILE
from pipelines.pretrain.checkpoints import NETWORK_FILE
from tests.committing import commit_tables
from tests.pipelines.finetune.examples import TASKS, task_of
from tests.pipelines.finetune.jobs import job


def given(folder: Path, made: FinetuneJob) -> tuple[FinetuneJob, TaskNetwork]:
    """A job that starts from a trained network of its task and trains nothing."""
    network = make_network(made.task, made.builder())
    files = {name: made.started.folder.read(name) for name in (NETWORK_FILE, MODEL_FILE)}
    files[WEIGHTS_FILE] = save({name: t.contiguous() for name, t in network.state_dict().items()})
    started = commit_tables(Store(folder / "given"), [], row_group_rows=1, files=files)
    return replace(made, started=started), network


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("detection", {"heads": {**TASKS["detection"]["heads"], "hidden": 24}}, "cascade.0.layers"),
        (
            "detection",
            {"heads": {**TASKS["detection"]["heads"], "num_convolutions": 2}},
            "cascade.0.layers",
        ),
        ("segmentation", {"sizes": {"window": 3, "channels": 8}}, "head.pyramid"),
    ],
)
def test_a_given_head_of_other_sizes_is_not_evaluated_with_random_values(
    tmp_path, kind, changes, words
):
    made, network = given(tmp_path, job(tmp_path / "inputs", kind))
    store = Store(tmp_path / "fitting")
    write_start(store, made)
    written = load_file(store.fetch(BEST_FILE))
    assert all((written[name] == t).all() for name, t in network.state_dict().items())
    other = replace(made, task=task_of(kind, **changes))
    with pytest.raises(StageError, match=f"than the section task: {words}.*task.json"):
        write_start(Store(tmp_path / "other"), other)


def test_masks_are_not_evaluated_of_a_head_without_them(tmp_path):
    boxes = job(tmp_path / "inputs", "detection", task={"masks": False})
    made, _ = given(tmp_path, boxes)
    write_start(Store(tmp_path / "fitting"), made)
    with pytest.raises(StageError, match="than the section task: mask_head"):
        write_start(Store(tmp_path / "other"), replace(made, task=task_of("detection")))


def test_weights_of_a_pretraining_have_no_head_that_could_be_unfit(tmp_path):
    made = job(tmp_path / "inputs", "detection")
    (line,) = [line for line in write_start(Store(tmp_path / "out"), made) if "initial" in line]
    assert "pyramid" in line
