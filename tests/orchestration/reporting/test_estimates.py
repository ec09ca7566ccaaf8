"""Estimates of a plan, from the recipe and from earlier runs. No stage runs here."""

import pyarrow as pa

from orchestration.params import StageParams
from orchestration.plan import complete_manifests, make_plan
from orchestration.reporting.estimates import estimate
from orchestration.reporting.usage import Expected, Usage, add_usage
from orchestration.stage import Stage
from orchestration.storage.store import Store
from tests.committing import commit_tables


class Number(StageParams):
    value: int = 0


def two_stages(value: int, rows: int | None = None) -> list[Stage]:
    """Return a source and a stage that reads it; ``rows`` is the source's expected rows."""
    return [
        Stage("a", lambda c: None, Number(value=value), expects=lambda: Expected(rows=rows)),
        Stage("b", lambda c: None, Number(value=value), {"in": ("a",)}),
    ]


def pretend_to_run(stages: list[Stage], workdir: Store, rows: dict[str, int], usage: Usage) -> None:
    for planned in make_plan(stages, workdir):
        table = pa.table({"n": range(rows[planned.stage.name])})
        folder = workdir.sub(planned.path)
        commit_tables(folder, [table], row_group_rows=100)
        add_usage(folder, usage)


def test_a_first_run_has_only_the_estimates_of_the_recipe(tmp_path):
    expected = estimate(make_plan(two_stages(0, rows=300), Store(tmp_path)), Store(tmp_path))
    assert expected["a"].rows == 300
    assert expected["a"].seconds is expected["b"].rows is expected["b"].bytes is None


def test_a_complete_stage_has_measured_numbers(tmp_path):
    store, stages = Store(tmp_path), two_stages(0)
    pretend_to_run(stages, store, {"a": 100, "b": 50}, Usage(10.0, 7))
    add_usage(store.sub(make_plan(stages, store)[0].path), Usage(2.0, 5))
    expected = estimate(make_plan(stages, store), store)
    assert (expected["a"].rows, expected["a"].seconds, expected["a"].memory) == (100, 12.0, 7)
    assert all(e.measured for e in expected.values())


def test_an_earlier_run_is_scaled_by_the_number_of_rows(tmp_path):
    store = Store(tmp_path)
    pretend_to_run(two_stages(0), store, {"a": 100, "b": 50}, Usage(10.0, 7, work=100))
    earlier = estimate(make_plan(two_stages(0), store), store)
    now = estimate(make_plan(two_stages(1, rows=300), store), store)
    assert now["a"].rows == 300
    assert now["a"].seconds == 30.0
    assert now["a"].memory == 7
    assert now["a"].bytes == 3 * (earlier["a"].bytes or 0)


def test_a_stage_is_scaled_by_the_estimated_rows_of_its_inputs(tmp_path):
    store = Store(tmp_path)
    pretend_to_run(two_stages(0), store, {"a": 100, "b": 50}, Usage(10.0))
    now = estimate(make_plan(two_stages(1, rows=300), store), store)
    assert now["b"].rows == 300  # the pretended run of b took 50 rows in and gave 50
    assert now["b"].seconds == 60.0


def test_the_latest_of_several_earlier_runs_is_used(tmp_path):
    store = Store(tmp_path)
    pretend_to_run(two_stages(0), store, {"a": 100, "b": 50}, Usage(10.0, work=100))
    pretend_to_run(two_stages(1), store, {"a": 100, "b": 50}, Usage(20.0, work=100))
    assert estimate(make_plan(two_stages(2, rows=100), store), store)["a"].seconds == 20.0


def test_the_manifest_of_a_complete_stage_is_read_once_for_a_plan_and_its_estimates(
    tmp_path, monkeypatch
):
    store, stages = Store(tmp_path), two_stages(0)
    pretend_to_run(stages, store, {"a": 100, "b": 50}, Usage(10.0))
    read, original = [], Store.read

    def counted(folder: Store, name: str) -> bytes:
        read.append(folder.uri_of(name))
        return original(folder, name)

    monkeypatch.setattr(Store, "read", counted)
    plan = make_plan(stages, store)
    estimate(plan, store)
    assert complete_manifests(plan).keys() == {"a", "b"}
    assert read.count(store.sub(plan[1].path).uri_of("manifest.json")) == 1
