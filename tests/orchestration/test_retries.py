"""Rounds of retries process rejected rows again; every row stays in exactly one table."""

import io
import json
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from rich.console import Console

from orchestration import Context, Dataset, Output, Recipe, Slice, Stage, Workflow
from orchestration.errors import RecipeError, StageError
from orchestration.integrity import damages, repair
from orchestration.manifest import MANIFEST, read_manifest
from orchestration.params import StageParams
from orchestration.plan import State
from orchestration.recipe import ClusterParams, SliceParams
from orchestration.retries import INTENT, ROUNDS, matches, rejected_rows, retry
from orchestration.slices import range_slices
from orchestration.storage.store import Store

pytestmark = pytest.mark.usefixtures("one_database")

NUM_ROWS = 12
REASONS = ("timeout", "http_503", "http_404")
"By row number modulo three."


def visit(folder: Store, world: Path, slice_: Slice) -> Output:
    """Accept the rows that the file ``world`` lists; a test may add rows between runs."""
    known = json.loads(world.read_text())
    if slice_.id in known.get("broken", []):
        raise ValueError("this slice is listed as broken")
    rejected = rejected_rows(folder, slice_)
    numbers = range(slice_.payload["start"], slice_.payload["stop"])
    kept = pa.table({"n": pa.array([], pa.int64()), "reason": pa.array([], pa.string())})
    if rejected is not None:
        numbers, kept = rejected[0]["n"].to_pylist(), rejected[1]
    bad = [n for n in numbers if n not in known["rows"]]
    rejects = pa.table(
        {
            "n": pa.array(bad, pa.int64()),
            "reason": pa.array([REASONS[n % 3] for n in bad], "string"),
        }
    )
    data = pa.table({"n": pa.array([n for n in numbers if n in known["rows"]], pa.int64())})
    total = len(list(numbers)) + kept.num_rows
    return Output(total, {"data": data, "rejects": pa.concat_tables([rejects, kept])})


def workflow(world: Path) -> Workflow:
    params = StageParams()
    slices = range_slices(NUM_ROWS, 4)

    def run(context: Context) -> None:
        context.map_slices(slices, partial(visit, context.folder, world))
        context.commit(slices)

    def again(context: Context, reasons: list[str]) -> None:
        factory = partial(partial, visit, context.folder, world)
        settings = {"num_actors": 1, "num_cpus": 1, "row_group_rows": 8}
        retry(context, slices, factory, reasons, **settings)

    def total(context: Context) -> None:
        rows = context.input("visits").read()["n"].to_pylist()
        context.commit(numbers={"total": sum(rows)})

    recipe = Recipe(
        name="toy",
        cluster=ClusterParams(num_cpus=2, object_store_mb=128),
        slices=SliceParams(pause_s=0.1, max_attempts=1),
    )
    stages = (
        Stage("visits", run, params, retry=again),
        Stage("total", total, params, {"visits": ("visits",)}),
    )
    return Workflow(recipe, stages)


def write(world: Path, rows: list[int], broken: tuple[str, ...] = ()) -> None:
    world.write_text(json.dumps({"rows": rows, "broken": broken}))


def go(world: Path, store: Store, **options) -> None:
    workflow(world).run(store, Console(file=io.StringIO()), **options)


def everything(world: Path, store: Store) -> tuple[list[int], dict[int, str]]:
    """Data and rejects, after checking that each row exists once and is counted correctly."""
    planned = workflow(world).plan(store)[0]
    dataset = Dataset.open(store.sub(planned.path))
    data = dataset.read()["n"].to_pylist()
    rejects = dataset.table("rejects").read().to_pylist()
    assert sorted(data + [row["n"] for row in rejects]) == list(range(NUM_ROWS))
    assert dataset.manifest.num_rows_in == NUM_ROWS
    assert dataset.manifest.rejects.total() == len(rejects)
    assert not list(damages(store.sub(planned.path)))
    return sorted(data), {row["n"]: row["reason"] for row in rejects}


@pytest.mark.slow
def test_a_round_processes_only_the_requested_rejects_and_makes_dependents_stale(tmp_path):
    world, store = tmp_path / "world.json", Store(tmp_path / "work")
    write(world, [0, 1, 2, 4])
    go(world, store)
    data, rejects = everything(world, store)
    assert data == [0, 1, 2, 4]
    before = {p: p.stat().st_mtime_ns for p in Path(store.uri).rglob("data/*.parquet")}

    write(world, [0, 1, 2, 4, 5, 6, 7, 9])  # 5 was rejected as http_404, which is not retried
    go(world, store, only="visits", retry=["timeout", "http_5xx"])
    data, rejects = everything(world, store)
    assert data == [0, 1, 2, 4, 6, 7, 9]
    assert rejects == {3: "timeout", 5: "http_404", 8: "http_404", 10: "http_503", 11: "http_404"}
    after = {p: p.stat().st_mtime_ns for p in before}
    assert after == before  # existing files are untouched
    visits, total = workflow(world).plan(store)
    assert visits.state is State.FRESH and total.state is State.STALE
    assert "visits changed" in total.reason

    write(world, list(range(NUM_ROWS)))
    go(world, store, only="visits", retry=["http_404"])
    go(world, store)
    data, rejects = everything(world, store)
    assert rejects == {3: "timeout", 10: "http_503"}
    numbers = Dataset.open(store.sub(workflow(world).plan(store)[1].path)).manifest.numbers
    assert numbers["total"] == sum(data)


@pytest.mark.slow
def test_an_interrupted_round_must_be_finished_with_the_same_reasons(tmp_path):
    world, store = tmp_path / "world.json", Store(tmp_path / "work")
    write(world, [])
    go(world, store)
    write(world, [0, 3, 6, 9], broken=("000001-r1",))
    with pytest.raises(StageError, match="000001-r1"):
        go(world, store, only="visits", retry=["timeout"])
    assert everything(world, store)[0] == []  # the old manifest is still valid
    folder = store.sub(workflow(world).plan(store)[0].path)
    assert folder.exists("parts/000000-r1.json") and folder.exists(INTENT)
    with pytest.raises(RecipeError, match="--retry timeout"):
        go(world, store, only="visits", retry=["http_404"])
    write(world, [0, 3, 6, 9])
    go(world, store, only="visits", retry=["timeout"])
    assert everything(world, store)[0] == [0, 3, 6, 9]


@pytest.mark.slow
@pytest.mark.parametrize("damaged", ["000001-r1", "000001"])
def test_a_repair_repeats_the_rounds(tmp_path, damaged):
    world, store = tmp_path / "world.json", Store(tmp_path / "work")
    write(world, [4])
    go(world, store)
    for rows, patterns in (([4, 6], ["timeout"]), ([4, 6, 7], ["http_5xx"])):
        write(world, rows)
        go(world, store, only="visits", retry=patterns)
    go(world, store)
    folder = store.sub(workflow(world).plan(store)[0].path)
    before = folder.read(MANIFEST)
    outcome = everything(world, store)
    table = read_manifest(folder).parts
    path = next(t.path for p in table if p.slice == damaged for t in p.tables.values())
    Path(folder.native_path(path)).write_bytes(b"damaged")
    assert [damage.slice for damage in repair(folder)] == [damaged]
    assert workflow(world).plan(store)[0].state is State.INTERRUPTED
    assert folder.exists("parts/000000-r1.json") and not folder.exists("parts/000001-r2.json")
    go(world, store)
    assert everything(world, store) == outcome
    assert read_manifest(folder).rounds == [["timeout"], ["http_5xx"]]
    if damaged != "000001":  # its rows came from the same rounds
        assert folder.read(MANIFEST) == before
    assert all(planned.state is State.FRESH for planned in workflow(world).plan(store))
    assert not folder.exists(ROUNDS) and not folder.names("", ".pending.json")


@pytest.mark.slow
def test_an_impossible_retry_gives_an_error_that_says_why(tmp_path):
    world, store = tmp_path / "world.json", Store(tmp_path / "work")
    write(world, [])
    with pytest.raises(RecipeError, match="run it first"):
        go(world, store, only="visits", retry=["timeout"])
    go(world, store)
    for only in (None, "total"):
        with pytest.raises(RecipeError, match="--only with one of: visits"):
            go(world, store, only=only, retry=["timeout"])
    with pytest.raises(RecipeError, match="no rejects for dns; it has http_404 4, http_503 4"):
        go(world, store, only="visits", retry=["dns"])


@pytest.mark.parametrize(
    ("reason", "patterns", "expected"),
    [
        ("http_503", ["http_5xx"], True),
        ("http_404", ["http_5xx"], False),
        ("http_503", ["http_50x"], True),
        ("timeout", ["http_5xx", "timeout"], True),
        ("timeout", ["time"], False),
        ("http_5030", ["http_5xx"], False),
        ("ax", ["a."], False),
    ],
)
def test_a_pattern_matches_reasons(reason, patterns, expected):
    assert matches(reason, patterns) is expected
