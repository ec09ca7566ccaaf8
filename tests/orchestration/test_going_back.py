"""Going back in a training: which checkpoints count afterwards, and which data are taken.

The loop is tested in ``tests/pipelines/training``, the command with Ray in ``tests/crashes``.
"""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from orchestration import Recipe, Stage, Workflow
from orchestration.branches import (
    BRANCHES,
    RECORDS,
    Branch,
    branch_files,
    branch_numbers,
    counts,
    data_step,
    read_branches,
    write_branches,
)
from orchestration.checkpoint_files import (
    RAY_TRAIN,
    checkpoint_name,
    checkpoints,
    step_of,
    write_list,
)
from orchestration.errors import RecipeError, StageError
from orchestration.going_back import go_back
from orchestration.manifest import MANIFEST
from orchestration.plan import IDENTITY, State
from orchestration.storage.store import Store
from orchestration.training import TrainingParams
from tests.in_process import run_in_process


def save(folder: Store, step: int) -> None:
    """Save a checkpoint of the branch of now."""
    checkpoint = folder.sub(f"{RAY_TRAIN}/{checkpoint_name(step, len(read_branches(folder)))}")
    checkpoint.write_bytes("weights", b"w" * step)
    local = folder.fetch(f"{RAY_TRAIN}/{checkpoint.name}")
    write_list(local, 0, 1)


def names(folder: Store) -> list[str]:
    return [checkpoint.name for checkpoint in checkpoints(folder)]


def test_newer_checkpoints_are_set_aside_and_the_new_branch_has_names_of_its_own(tmp_path):
    folder, said = Store(tmp_path), []
    for step in (10, 20, 30):
        save(folder, step)
    go_back(folder, Branch(10, 5), "line", said.append)
    assert said == [
        "line: goes back to step 10; set aside: step_00000030, step_00000020",
        "line: leaves out the data of 5 steps from step 11 on",
    ]
    assert names(folder) == ["step_00000010"]
    for step in (20, 25):
        save(folder, step)
    assert names(folder) == ["step_00000025_branch_1", "step_00000020_branch_1", "step_00000010"]
    assert [step_of(c) for c in checkpoints(folder)] == [25, 20, 10]
    go_back(folder, Branch(20, 0), "line", said.append)
    save(folder, 30)
    assert names(folder) == ["step_00000030_branch_2", "step_00000020_branch_1", "step_00000010"]
    assert len(folder.folders(RAY_TRAIN)) == 6, "nothing is removed"


def test_the_same_command_again_does_not_go_back_again(tmp_path):
    folder = Store(tmp_path)
    for step in (10, 20):
        save(folder, step)
    go_back(folder, Branch(10, 5), "line", lambda line: None)
    save(folder, 15)
    go_back(folder, Branch(10, 5), "line", pytest.fail)
    assert names(folder) == ["step_00000015_branch_1", "step_00000010"]
    go_back(folder, Branch(10, 6), "line", lambda line: None)
    assert names(folder) == ["step_00000010"]


def test_a_step_without_checkpoint_is_refused_with_those_there_are(tmp_path):
    folder = Store(tmp_path)
    with pytest.raises(RecipeError, match=r"line has no checkpoint .* of steps: none"):
        go_back(folder, Branch(10, 0), "line", pytest.fail)
    for step in (10, 20, 30, 40):
        save(folder, step)
    folder.remove(f"{RAY_TRAIN}/step_00000020/weights")
    go_back(folder, Branch(30, 0), "line", lambda line: None)
    for step in (20, 25, 40):
        with pytest.raises(RecipeError, match=r"--from-step .* of steps: 10, 30$"):
            go_back(folder, Branch(step, 0), "line", pytest.fail)


def test_a_damaged_checkpoint_is_refused_and_nothing_is_set_aside(tmp_path):
    folder = Store(tmp_path)
    for step in (10, 20):
        save(folder, step)
    folder.write_bytes(MANIFEST, b"{}")
    folder.write_bytes(f"{RAY_TRAIN}/step_00000010/weights", b"W" * 10)
    with pytest.raises(StageError, match="cannot go back to step 10: the content of weights"):
        go_back(folder, Branch(10, 0), "line", pytest.fail)
    assert folder.exists(MANIFEST) and len(names(folder)) == 2


def test_a_complete_output_is_no_longer_complete(tmp_path):
    folder = Store(tmp_path)
    save(folder, 10)
    folder.write_bytes(MANIFEST, b"{}")
    go_back(folder, Branch(10, 0), "line", lambda line: None)
    assert not folder.exists(MANIFEST)


def test_records_of_skipped_steps_of_the_abandoned_attempt_are_removed(tmp_path):
    folder, said = Store(tmp_path), []
    for step in (10, 20):
        save(folder, step)
    records = ["step-00000010", "step-00000011", "step-00000012-data-00000015", "step-100000000"]
    for name in records:
        folder.write_bytes(f"{RECORDS}/{name}/worker-00000-of-00001.json", b"{}")
    go_back(folder, Branch(10, 0), "line", said.append)
    assert folder.folders(RECORDS) == ["step-00000010"]
    assert said[1:] == ["line: removes the records of 3 skipped steps after it"]
    folder.write_bytes(f"{RECORDS}/step-00000011/worker-00000-of-00001.json", b"{}")
    go_back(folder, Branch(10, 0), "line", pytest.fail)  # the same command again
    assert folder.folders(RECORDS) == ["step-00000010", "step-00000011"]


@pytest.mark.parametrize(
    ("branches", "steps", "left_out"),
    [
        ([], {0: 0, 99: 99}, 0),
        ([(10, 5)], {9: 9, 10: 15, 20: 25}, 5),
        ([(10, 5), (20, 100)], {9: 9, 10: 15, 19: 24, 20: 125}, 105),
        ([(10, 5), (10, 7)], {9: 9, 10: 17}, 7),
        ([(20, 5), (10, 7)], {9: 9, 10: 17, 20: 27}, 7),
        ([(10, 5), (30, 3), (20, 1)], {10: 15, 19: 24, 20: 26, 30: 36}, 6),
        ([(10, 0)], {9: 9, 10: 10}, 0),
    ],
)
def test_data_are_left_out_from_the_first_step_of_each_branch_that_lasts(
    tmp_path, branches, steps, left_out
):
    made = [Branch(*each) for each in branches]
    assert {step: data_step(made, step) for step in steps} == steps
    Store(tmp_path).write_bytes(BRANCHES, b"[]")
    folder = Store(tmp_path)
    for branch in made:
        for step in sorted({each.from_step for each in made}):
            save(folder, step)
        go_back(folder, branch, "line", lambda line: None)
    numbers = branch_numbers(folder)
    if made:
        assert numbers["num_times_back"] == len(made)
        assert numbers["num_steps_of_data_left_out"] == left_out
    else:
        assert numbers == {}
    assert [file.path for file in branch_files(folder)] == [BRANCHES]
    assert branch_files(Store(tmp_path / "other")) == []


def test_a_checkpoint_of_an_unknown_branch_does_not_count():
    assert not counts([], 1, 5) and counts([], 0, 5)
    assert counts([Branch(10, 0)], 0, 10) and not counts([Branch(10, 0)], 0, 11)


class Steps(TrainingParams):
    steps: int = 60


def commit(stage: Stage, folder: Store) -> None:
    """Commit the empty output of a training."""
    folder.write_bytes(IDENTITY, b"{}")
    run_in_process(replace(stage, run=lambda context: context.commit()), folder, {})


def trainings(folder: Store, *names: str, committed: bool = False) -> Workflow:
    """A workflow of trainings, each with a checkpoint of step 10."""
    found = Workflow(
        Recipe(name="toy"), tuple(Stage(name, lambda context: None, Steps()) for name in names)
    )
    for planned in found.plan(folder):
        stage = folder.sub(planned.path)
        save(stage, 10)
        if committed:
            commit(planned.stage, stage)
    return found


@pytest.mark.parametrize("committed", [False, True])
def test_no_training_goes_back_to_its_end(tmp_path, committed):
    folder, console = Store(tmp_path), Console(file=io.StringIO())
    found = trainings(folder, "a", committed=committed)
    (planned,) = found.plan(folder)
    save(folder.sub(planned.path), 60)
    with pytest.raises(RecipeError, match="--from-step 60: a ends with that step; give"):
        found.run(folder, console, only="a", back=Branch(60, 5))
    assert read_branches(folder.sub(planned.path)) == ()


def test_a_changed_setting_is_named_when_a_training_is_to_go_back(tmp_path):
    folder, console = Store(tmp_path), Console(file=io.StringIO())
    (planned,) = trainings(folder, "a").plan(folder)
    folder.sub(planned.path).write_bytes(IDENTITY, json.dumps(planned.identity).encode())
    changed = Workflow(Recipe(name="toy"), (Stage("a", lambda context: None, Steps(steps=70)),))
    words = r"--from-step 10: a has other settings .*10 of 60 .*steps: 60 → 70\); undo the change"
    for new_training in (False, True):
        with pytest.raises(RecipeError, match=words):
            changed.run(folder, console, back=Branch(10, 0), new_training=new_training)


@pytest.mark.parametrize(
    ("names", "committed", "only", "words"),
    [
        (("a", "b"), False, None, "2 trainings are to be run; add --only with one of: a, b"),
        (("a", "b"), True, None, "no trainings are to be run; add --only with one of: a, b"),
        ((), False, None, "one of: none, as the recipe has no training"),
        (("a",), False, None, "a has no checkpoint of that step .* steps: 10"),
        (("a",), True, "a", "a has no checkpoint of that step .* steps: 10"),
        (("a", "b"), False, "b", "b has no checkpoint of that step .* steps: 10"),
    ],
)
def test_the_training_that_goes_back_is_the_only_one_or_named(
    tmp_path, names, committed, only, words
):
    folder, console = Store(tmp_path), Console(file=io.StringIO())
    found = trainings(folder, *names, committed=committed)
    with pytest.raises(RecipeError, match=f"--from-step.*{words}"):
        found.run(folder, console, only=only, back=Branch(20, 0))


def test_a_complete_training_that_went_back_in_this_way_is_left_alone(tmp_path):
    folder, console = Store(tmp_path), Console(file=io.StringIO())
    found = trainings(folder, "a", committed=True)
    (planned,) = found.plan(folder)
    write_branches(folder.sub(planned.path), [Branch(10, 3)])
    found.run(folder, console, only="a", back=Branch(10, 3))
    assert found.plan(folder)[0].state is State.FRESH
