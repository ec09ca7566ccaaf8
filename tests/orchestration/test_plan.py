"""Plans over graphs of stages: the state of each stage and its reason. No stage runs here."""

import io
import json

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from orchestration.generations import commit_manifest
from orchestration.manifest import SCHEMA_VERSION, Manifest, Parent, manifest_sha256
from orchestration.params import StageParams
from orchestration.plan import IDENTITY, PlannedStage, State, differences, make_plan
from orchestration.reporting.estimates import Estimate
from orchestration.reporting.summary import plan_table
from orchestration.stage import Stage
from orchestration.storage.store import Store


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
