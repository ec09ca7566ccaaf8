"""Slices that end their worker: the rows are found and become rejects, the others come through."""

import ctypes
import io
import os
import signal
from collections.abc import Callable
from functools import partial

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from orchestration import Context, Dataset, Output, Recipe, Slice, Stage, Workflow, suspects
from orchestration.errors import StageError
from orchestration.params import StageParams
from orchestration.recipe import ClusterParams, SliceParams
from orchestration.slices import range_slices
from orchestration.storage.store import Store
from orchestration.suspects import (
    KILLED_WORKER,
    Around,
    Resources,
    WorkerLostError,
    joined,
    killing_rows,
)

NUM_ROWS = 40
RECIPE = Recipe(
    name="toy",
    cluster=ClusterParams(num_cpus=2, object_store_mb=128),
    slices=SliceParams(max_attempts=2, pause_s=0.1),
)


def kill_by_signal() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def read_address_zero() -> None:
    ctypes.string_at(0)


def leave() -> None:
    os._exit(3)


def double(deadly: set[int], end: Callable[[], None], slice_: Slice) -> Output:
    rows = range(slice_.payload["start"], slice_.payload["stop"])
    if deadly & set(rows):
        end()
    return Output(len(rows), {"data": pa.table({"n": [2 * n for n in rows]})}, {"seen": len(rows)})


def reject_rows(slice_: Slice, detail: str) -> Output:
    rows = list(range(slice_.payload["start"], slice_.payload["stop"]))
    reasons = [KILLED_WORKER] * len(rows)
    rejects = pa.table({"n": rows, "reason": reasons, "detail": [detail] * len(rows)})
    return Output(len(rows), {"rejects": rejects})


def run(
    store: Store,
    deadly: set[int],
    end: Callable[[], None],
    *,
    num_actors: int,
    with_quarantine: bool = True,
) -> Dataset:
    slices = range_slices(NUM_ROWS, 8)
    quarantine = reject_rows if with_quarantine else None
    process = partial(double, deadly, end)

    def work(context: Context) -> None:
        if num_actors:
            make = partial(partial, process)
            context.map_slices_with_actors(
                slices, make, num_actors=num_actors, num_cpus=0.5, quarantine=quarantine
            )
        else:
            context.map_slices(slices, process, num_cpus=0.5, quarantine=quarantine)
        context.commit(slices)

    flow = Workflow(RECIPE, (Stage("doubled", work, StageParams()),))
    (planned,) = flow.run(store, Console(file=io.StringIO()))
    return Dataset.open(store.sub(planned.path))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "deadly", "num_actors"),
    [
        pytest.param(kill_by_signal, {21}, 0, id="SIGKILL, tasks"),
        pytest.param(kill_by_signal, {21}, 2, id="SIGKILL, actors"),
        pytest.param(read_address_zero, {0, 39}, 0, id="SIGSEGV, tasks"),
        pytest.param(
            read_address_zero, {0, 39}, 2, id="SIGSEGV, actors", marks=pytest.mark.exhaustive
        ),
        pytest.param(leave, {8, 9, 15}, 0, id="exit, tasks"),
        pytest.param(leave, {8, 9, 15}, 2, id="exit, actors"),
    ],
)
def test_rows_that_end_their_worker_are_rejects_and_the_others_come_through(
    tmp_path, num_actors, end, deadly
):
    dataset = run(Store(tmp_path), deadly, end, num_actors=num_actors)
    assert dataset.read()["n"].to_pylist() == [2 * n for n in range(NUM_ROWS) if n not in deadly]
    rejects = dataset.table("rejects").read().to_pylist()
    assert [row["n"] for row in rejects] == sorted(deadly)
    assert {row["reason"] for row in rejects} == {KILLED_WORKER}
    assert dataset.manifest.num_rows_in == NUM_ROWS


@pytest.mark.slow
@pytest.mark.parametrize("num_actors", [0, 2])
def test_a_stage_without_such_rejects_fails_and_names_the_slice_alone(tmp_path, num_actors):
    store = Store(tmp_path)
    with pytest.raises(StageError, match="1 of 5 slices failed") as error:
        run(store, {21}, kill_by_signal, num_actors=num_actors, with_quarantine=False)
    assert 'slice 000002 ({"start": 16, "stop": 24})' in str(error.value)
    assert "also when the slice ran alone" in str(error.value)
    dataset = run(store, set(), kill_by_signal, num_actors=num_actors)
    assert dataset.read()["n"].to_pylist() == [2 * n for n in range(NUM_ROWS)]


@pytest.fixture
def in_process(monkeypatch):
    """Run work alone in this process; a process that raises WorkerLostError stands for its end."""
    monkeypatch.setattr(suspects, "run_alone", lambda work, resources: work())


def dying(deadly: set[int], slice_: Slice) -> Output:
    def end() -> None:
        raise WorkerLostError("ended")

    return double(deadly, end, slice_)


@given(data=st.data(), size=st.integers(1, 300), start=st.integers(0, 1000))
def test_any_few_rows_are_found_and_left_out(data, size, start):
    rows = range(start, start + size)
    deadly = set(data.draw(st.lists(st.sampled_from(rows), min_size=1, max_size=8)))
    slice_ = Slice("x", {"start": start, "stop": start + size}, size)
    factory = partial(partial, dying, deadly)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suspects, "run_alone", lambda work, resources: work())
        found = killing_rows(slice_, factory, Resources(1, 0))
    assert found == sorted(deadly)
    output = Around(factory, reject_rows, found, "ended")()(slice_)
    data_rows = output.tables["data"]["n"].to_pylist() if "data" in output.tables else []
    assert data_rows == [2 * n for n in rows if n not in deadly]
    assert output.tables["rejects"]["n"].to_pylist() == found
    assert output.num_rows_in == size


def test_a_worker_that_always_ends_is_not_blamed_on_its_rows(in_process):
    slice_ = Slice("x", {"start": 0, "stop": 64}, 64)
    assert killing_rows(slice_, partial(partial, dying, set(range(64))), Resources(1, 0)) is None


def test_rows_that_end_a_worker_only_together_are_not_blamed_alone(in_process):
    def together(slice_: Slice) -> Output:
        return dying({5} if slice_.payload["stop"] - slice_.payload["start"] > 8 else set(), slice_)

    slice_ = Slice("x", {"start": 0, "stop": 64}, 64)
    assert killing_rows(slice_, lambda: together, Resources(1, 0)) is None


def test_counters_of_joined_outputs_are_added():
    outputs = [Output(2, {}, {"seen": 2}), Output(1, {}), Output(3, {}, {"seen": 3, "odd": 1})]
    assert joined(outputs) == Output(6, {}, {"seen": 5, "odd": 1})
