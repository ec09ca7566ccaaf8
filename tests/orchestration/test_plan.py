"""Plans over graphs of stages: the state of each stage and its reason. No stage runs here."""

import io
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from orchestration import Recipe, Workflow
from orchestration.checkpoint_files import RAY_TRAIN, checkpoint_name, write_list
from orchestration.errors import RecipeError
from orchestration.generations import commit_manifest
from orchestration.manifest import (
    MANIFEST,
    SCHEMA_VERSION,
    Manifest,
    Parent,
    manifest_sha256,
)
from orchestration.params import StageParams
from orchestration.plan import IDENTITY, PlannedStage, State, differences, make_plan
from orchestration.reporting.estimates import Estimate
from orchestration.reporting.summary import plan_table
from orchestration.stage import Stage
from orchestration.storage.store import Store
from orchestration.training import TrainingParams


class Number(StageParams):
    value: int = 0


def stage(name: str, value: int, inputs: tuple[str, ...] = (), version: int = 1) -> Stage:
    return Stage(name, lambda context: None, Number(value=value), {"in": inputs}, version=version)


def pretend_to_run(plan, workdir: Store) -> None:
    fingerprints = {p.stage.name: p.fingerprint for p in plan}
    for planned in plan:
        folder = workdir.sub(planned.path)
        folder.write_bytes(IDENTITY, json.dumps(planned.identity).encode())
        parents = [
            Parent(
                stage=name,
                fingerprint=fingerprints[name],
                manifest_sha256=manifest_sha256(workdir.sub(f"{name}/{fingerprints[name]}")),
            )
            for name in planned.stage.input_names
        ]
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            stage=planned.stage.name,
            fingerprint=planned.fingerprint,
            params={},
            parents={"in": parents},
            parts=[],
            columns={},
            files=[],
            rounds=[],
            numbers={},
        )
        commit_manifest(folder, manifest.to_bytes())
    record = {"name": "t", "stages": fingerprints, "started_at": 1.0}
    workdir.write_bytes("workflows/a/record.json", json.dumps(record).encode())


def test_every_stage_of_a_new_workdir_is_missing(tmp_path):
    plan = make_plan([stage("a", 0)], Store(tmp_path))
    assert [p.state for p in plan] == [State.MISSING]


def test_a_stage_with_a_manifest_is_fresh(tmp_path):
    stages = [stage("a", 0), stage("b", 0, ("a",))]
    pretend_to_run(make_plan(stages, Store(tmp_path)), Store(tmp_path))
    assert [p.state for p in make_plan(stages, Store(tmp_path))] == [State.FRESH] * 2


def test_a_started_stage_without_a_manifest_is_interrupted(tmp_path):
    planned = make_plan([stage("a", 0)], Store(tmp_path))[0]
    Store(tmp_path).sub(planned.path).write_bytes(IDENTITY, b"{}")
    assert make_plan([stage("a", 0)], Store(tmp_path))[0].state is State.INTERRUPTED


class Steps(TrainingParams):
    lr: float = 1.0
    steps: int = 60


def training(workers: int = 1, **changes: float) -> Stage:
    return Stage("a", lambda context: None, Steps(num_workers=workers, **changes))


def pretend_to_train(workdir: Store, stage: Stage, step: int) -> Store:
    """Save a checkpoint of a stage that is not committed; return the stage's folder."""
    (planned,) = make_plan([stage], workdir)
    folder = workdir.sub(planned.path)
    folder.write_bytes(IDENTITY, json.dumps(planned.identity).encode())
    path = f"{RAY_TRAIN}/{checkpoint_name(step)}"
    folder.write_bytes(f"{path}/weights", b"w")
    write_list(folder.fetch(path), 0, 1)
    return folder


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (training(lr=2.0), "lr: 1.0 → 2.0"),
        (training(steps=90), "steps: 60 → 90"),
        (training(lr=2.0, steps=90), "lr: 1.0 → 2.0; steps: 60 → 90"),
        (replace(training(), version=2), "code version: 1 → 2"),
    ],
)
def test_an_unfinished_training_with_other_settings_is_named_and_not_left_silently(
    tmp_path, now, words
):
    workdir, console = Store(tmp_path), Console(file=io.StringIO())
    folder = pretend_to_train(workdir, training(), 30)
    (planned,) = make_plan([now], workdir)
    assert planned.state is State.MISSING
    assert planned.reason == f"30 of 60 steps are done in a/{folder.name}: {words}"
    with pytest.raises(RecipeError) as error:
        Workflow(Recipe(name="toy"), (now,)).run(workdir, console)
    assert planned.reason in str(error.value) and "--new-training" in str(error.value)
    assert workdir.folders("a") == [folder.name] and not workdir.exists("workflows")


@pytest.mark.parametrize(
    ("change", "now"),
    [
        (lambda folder: None, training(workers=3)),
        (lambda folder: folder.write_bytes(MANIFEST, b"{}"), training(lr=2.0)),
        (lambda folder: folder.remove(RAY_TRAIN), training(lr=2.0)),
        (lambda folder: folder.remove(""), training(lr=2.0)),
    ],
    ids=["the same training", "a complete one", "no step is done", "it was removed"],
)
def test_nothing_is_given_up_without_an_unfinished_training(tmp_path, change, now):
    workdir = Store(tmp_path)
    change(pretend_to_train(workdir, training(), 30))
    assert make_plan([now], workdir)[0].unfinished == ()


def test_a_training_that_was_started_beside_an_unfinished_one_continues(tmp_path):
    workdir = Store(tmp_path)
    pretend_to_train(workdir, training(), 30)
    (planned,) = make_plan([training(lr=2.0)], workdir)
    workdir.sub(planned.path).write_bytes(IDENTITY, b"{}")
    (planned,) = make_plan([training(lr=2.0)], workdir)
    assert planned.state is State.INTERRUPTED and planned.unfinished == ()


def test_the_reason_names_the_parameter_the_version_and_the_input(tmp_path):
    store = Store(tmp_path)
    pretend_to_run(make_plan([stage("a", 1), stage("b", 0, ("a",))], store), store)
    plan = make_plan([stage("a", 2), stage("b", 0, ("a",), version=2)], store)
    assert [p.state for p in plan] == [State.STALE] * 2
    assert plan[0].reason == "value: 1 → 2"
    assert plan[1].reason == "code version: 1 → 2; input a changed"


@given(data=st.data(), size=st.integers(1, 12))
def test_a_changed_parameter_reruns_the_stage_and_its_descendants_only(
    data, size, tmp_path_factory
):
    names = [f"s{i}" for i in range(size)]
    parents = [tuple(name for name in names[:i] if data.draw(st.booleans())) for i in range(size)]
    changed = data.draw(st.integers(0, size - 1))
    store = Store(tmp_path_factory.mktemp("plan"))
    before = [stage(n, 0, p) for n, p in zip(names, parents, strict=True)]
    pretend_to_run(make_plan(before, store), store)

    after = [stage(n, int(i == changed), parents[i]) for i, n in enumerate(names)]
    plan = make_plan(after, store)

    descendants = {names[changed]}
    for name, inputs in zip(names, parents, strict=True):
        if descendants & set(inputs):
            descendants.add(name)
    assert {p.stage.name for p in plan if p.state is not State.FRESH} == descendants


def test_the_reason_names_a_file_whose_content_changed():
    before = {"version": 1, "params": {"list": "sha256:1"}, "inputs": {}}
    now = {"version": 1, "params": {"list": "sha256:2"}, "inputs": {}}
    assert differences(before, now) == ["list: content changed"]


def test_brackets_in_a_reason_are_shown():
    one = stage("one", 1)
    reason = "name: [b] → [/x] y"
    planned = PlannedStage(one, "f" * 16, {}, State.STALE, reason, "f" * 16)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(plan_table([planned], {"one": Estimate(None, None, None, None, False)}))
    assert reason in console.export_text()
