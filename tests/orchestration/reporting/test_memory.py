"""The predicted memory of workers: in an estimate, and beside the memory of the machine."""

from pathlib import Path

import pytest

from orchestration.params import StageParams
from orchestration.plan import make_plan
from orchestration.recipe import ClusterParams
from orchestration.reporting.estimates import estimate
from orchestration.reporting.memory import machine_memory, memory_warnings
from orchestration.reporting.usage import Expected, Usage, Workers
from orchestration.stage import Stage
from orchestration.storage.store import Store
from tests.orchestration.reporting.test_estimates import pretend_to_run

GB = 10**9


def stages(number: int | None, per_row: int = GB) -> list[Stage]:
    """Return a source of four rows, and a stage whose worker needs ``per_row`` bytes for each."""
    return [
        Stage("a", lambda c: None, StageParams(), expects=lambda: Expected(rows=4)),
        Stage(
            "b",
            lambda c: None,
            StageParams(),
            {"in": ("a",)},
            workers=lambda inputs: Workers((inputs["a"].rows or 0) * per_row, number),
        ),
    ]


def warnings_of(declared: list[Stage], workdir: Path, available: int) -> list[str]:
    store = Store(workdir)
    plan = make_plan(declared, store)
    return list(memory_warnings(plan, estimate(plan, store), ClusterParams(num_cpus=3), available))


def test_a_stage_predicts_its_memory_from_the_size_of_its_inputs(tmp_path):
    store = Store(tmp_path)
    assert estimate(make_plan(stages(1), store), store)["b"].memory == 4 * GB
    pretend_to_run(stages(1)[:1], store, {"a": 9}, Usage(1.0))
    assert estimate(make_plan(stages(1), store), store)["b"].memory == 9 * GB


@pytest.mark.parametrize(
    ("number", "available", "remedy"),
    [
        (2, 8 * GB, None),
        (2, 7 * GB, "use at most 1 on a machine"),
        (None, 12 * GB, None),
        (None, 11 * GB, "set cluster.num_cpus=2"),
        (1, 3 * GB, "use a larger machine, or smaller slices"),
    ],
)
def test_workers_that_together_need_more_than_the_machine_has_are_named_with_a_remedy(
    tmp_path, number, available, remedy
):
    lines = warnings_of(stages(number), tmp_path, available)
    if remedy is None:
        assert not lines
    else:
        (line,) = lines
        assert line.startswith("b: ") and remedy in line and "about 4.0 GB" in line


def test_a_complete_stage_is_not_warned_about(tmp_path):
    pretend_to_run(stages(2), Store(tmp_path), {"a": 4, "b": 4}, Usage(1.0))
    assert not warnings_of(stages(2), tmp_path, available=1)


def test_the_memory_of_a_cluster_is_not_that_of_this_machine(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    alone = machine_memory(ClusterParams())
    assert alone is not None and alone > 0
    assert machine_memory(ClusterParams(object_store_mb=1024)) == alone - (512 << 20)
    assert machine_memory(ClusterParams(address="ray://head:10001")) is None
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert machine_memory(ClusterParams()) is None
