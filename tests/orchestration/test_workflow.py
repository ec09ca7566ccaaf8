"""Workflows that run on Ray: commit, resume, failure, and the runs in MLflow.

Kills of real processes are in ``tests/crashes`` and ``tests/end_to_end``.
"""

import io
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from mlflow import MlflowClient
from rich.console import Console

from orchestration import Context, Dataset, Output, Recipe, Slice, Stage, Workflow
from orchestration.errors import RecipeError, StageError
from orchestration.params import StageParams
from orchestration.plan import State, latest_record
from orchestration.recipe import ClusterParams, SliceParams
from orchestration.slices import read_slice, row_slices
from orchestration.storage.store import Store
from tests.crashes.test_crashes import NOT_OUTPUT

pytestmark = pytest.mark.slow


class Params(StageParams):
    factor: int = 1
    fail_at: str | None = None


def numbers(context: Context, params: Params, traces: Path) -> None:
    slices = [Slice(f"{i}", {"n": i}) for i in range(4)]
    context.map_slices(slices, partial(one_number, params, traces))
    context.commit(slices)


def one_number(params: Params, traces: Path, slice_: Slice) -> Output:
    with (traces / slice_.id).open("a") as file:
        file.write("x")
    if slice_.id == params.fail_at:
        raise ValueError(f"cannot count to {slice_.id}")
    table = pa.table({"n": [slice_.payload["n"] * params.factor]})
    rejects = pa.table(
        {"reason": ["odd"] if slice_.payload["n"] % 2 else pa.array([], pa.string())}
    )
    return Output(1, {"data": table, "rejects": rejects}, {"seen": 1})


def doubled(context: Context, params: Params) -> None:
    source = context.input("numbers")
    slices = row_slices(source, 3)
    context.map_slices_with_actors(slices, partial(Doubler, source), num_actors=1)
    context.commit(slices, numbers={"sum": sum(context.read_parts(slices)["n"].to_pylist())})


class Doubler:
    def __init__(self, source: Dataset) -> None:
        self.source = source

    def __call__(self, slice_: Slice) -> Output:
        rows = read_slice(self.source, slice_)
        table = pa.table({"n": [2 * n for n in rows["n"].to_pylist()]})
        return Output(rows.num_rows, {"data": table})


def workflow(traces: Path, factor: int = 1, fail_at: str | None = None) -> Workflow:
    params = Params(factor=factor)
    failing = Params(factor=factor, fail_at=fail_at)
    recipe = Recipe(
        name="toy",
        cluster=ClusterParams(num_cpus=2, object_store_mb=128),
        slices=SliceParams(pause_s=0.1),
    )
    return Workflow(
        recipe,
        (
            Stage("numbers", lambda c: numbers(c, failing, traces), params),
            Stage("doubled", lambda c: doubled(c, params), params, {"numbers": ("numbers",)}),
        ),
    )


@pytest.fixture
def traces(tmp_path):
    (tmp_path / "traces").mkdir()
    return tmp_path / "traces"


def quiet() -> Console:
    return Console(file=io.StringIO())


class Noise:
    """Draws random numbers, seeded by the id of the slice."""

    def __call__(self, slice_: Slice) -> Output:
        rng = np.random.default_rng(int(slice_.id))
        words = rng.bytes(50).hex("-").split("-")
        return Output(50, {"data": pa.table({"number": rng.random(50), "word": words})})


def drawn(context: Context, num_actors: int) -> None:
    slices = [Slice(f"{i:02d}", {}) for i in range(11)]
    if num_actors:
        context.map_slices_with_actors(slices, Noise, num_actors=num_actors, num_cpus=0.5)
    else:
        context.map_slices(slices, Noise(), num_cpus=0.5)
    context.commit(slices)


@pytest.mark.parametrize(("num_actors", "max_blocks"), [(0, 2), (1, 4096), (3, 5)])
def test_the_number_of_workers_and_blocks_changes_no_byte(
    tmp_path, monkeypatch, num_actors, max_blocks
):
    outputs = []
    for name, actors, blocks in (("a", 0, 4096), ("b", num_actors, max_blocks)):
        monkeypatch.setattr("orchestration.slice_runner._MAX_BLOCKS", blocks)
        store = Store(tmp_path / name)
        stage = Stage("drawn", partial(drawn, num_actors=actors), Params())
        (planned,) = Workflow(Recipe(name="toy"), (stage,)).run(store, quiet())
        folder = store.sub(planned.path)
        outputs.append({p: folder.read(p) for p, _ in folder.walk() if not p.endswith(NOT_OUTPUT)})
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) == 3 + 2 * 11  # manifest, generations, identity; part and table


def test_a_workflow_runs_resumes_and_is_then_fresh(tmp_path, traces):
    store = Store(tmp_path / "work")
    with pytest.raises(StageError, match="cannot count to 2") as error:
        workflow(traces, fail_at="2").run(store, quiet())
    assert "1 of 4 slices failed" in str(error.value)
    assert 'slice 2 ({"n": 2}), 3 attempts' in str(error.value)
    assert store.uri_of("logs") in str(error.value)
    assert [p.state for p in workflow(traces).plan(store)] == [State.INTERRUPTED, State.MISSING]

    plan = workflow(traces).run(store, quiet())
    folder = store.sub(plan[1].path)
    assert Dataset.open(folder).read()["n"].to_pylist() == [0, 2, 4, 6]
    assert Dataset.open(folder).manifest.numbers == {"sum": 12}
    assert Dataset.open(store.sub(plan[0].path)).manifest.rejects == {"odd": 2}
    # Only the failed slice was processed again: three attempts before, one now.
    assert {path.name: path.read_text() for path in traces.iterdir()} == {
        "0": "x",
        "1": "x",
        "2": "xxxx",
        "3": "x",
    }
    assert [p.state for p in workflow(traces).plan(store)] == [State.FRESH] * 2
    assert [p.state for p in workflow(traces, factor=3).plan(store)] == [State.STALE] * 2

    check_mlflow(tmp_path / "work")


def check_mlflow(workdir: Path) -> None:
    client = MlflowClient(f"sqlite:///{workdir}/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "beit3"]
    runs = {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {
        "toy",
        "numbers",
        "doubled",
    }  # one run each over two attempts
    assert {r.info.status for r in runs.values()} == {"FINISHED"}
    parent = runs["toy"].info.run_id
    assert runs["numbers"].data.tags["mlflow.parentRunId"] == parent
    assert runs["numbers"].data.metrics["rejects/odd"] == 2
    assert runs["doubled"].data.metrics["sum"] == 12
    assert runs["doubled"].data.params["factor"] == "1"
    assert [a.path for a in client.list_artifacts(parent)] == ["recipe.yaml"]


def test_a_stage_that_runs_alone_needs_fresh_inputs(tmp_path, traces):
    with pytest.raises(RecipeError, match="numbers, which is not fresh"):
        workflow(traces).run(Store(tmp_path / "work"), quiet(), only="doubled")
    with pytest.raises(RecipeError, match="--only and --until exclude each other"):
        workflow(traces).run(Store(tmp_path / "work"), quiet(), only="doubled", until="numbers")
    with pytest.raises(RecipeError, match="no stage is named 'tripled'"):
        workflow(traces).run(Store(tmp_path / "work"), quiet(), until="tripled")
    assert latest_record(Store(tmp_path / "work")) is None


def test_an_unmet_requirement_is_reported_before_anything_runs(tmp_path, traces):
    flow = workflow(traces)
    unready = Stage("unready", lambda c: None, Params(), requires=lambda: "needs a file")
    with pytest.raises(RecipeError, match="unready: needs a file"):
        Workflow(flow.recipe, (*flow.stages, unready)).run(Store(tmp_path / "work"), quiet())
    assert not (tmp_path / "work").exists()


def test_a_graph_with_an_undefined_input_is_refused():
    with pytest.raises(ValueError, match="its input nowhere"):
        Workflow(Recipe(name="x"), (Stage("a", lambda c: None, Params(), {"in": ("nowhere",)}),))
