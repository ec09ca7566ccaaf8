"""A stage is fresh only while its inputs hold the content that it was made from."""

from pathlib import Path

import pytest

from orchestration import Dataset
from orchestration.errors import ManifestError, StageError
from orchestration.generations import GENERATIONS, commit_manifest, content_id
from orchestration.integrity import check_lineage, repair
from orchestration.manifest import MANIFEST
from orchestration.plan import State
from orchestration.storage.store import Store
from tests.orchestration.test_retries import go, workflow, write

pytestmark = pytest.mark.usefixtures("one_database")


def flip_a_byte(folder: Store) -> None:
    path = Path(folder.uri, Dataset.open(folder).parts[0].path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def total(world: Path, store: Store) -> float:
    planned = workflow(world).plan(store)[1]
    assert planned.state is State.FRESH
    return Dataset.open(store.sub(planned.path)).manifest.numbers["total"]


def states(world: Path, store: Store) -> list[State]:
    return [planned.state for planned in workflow(world).plan(store)]


def test_the_first_content_is_known_by_the_fingerprint_and_later_ones_by_their_digest(tmp_path):
    folder = Store(tmp_path / "stage" / "0123456789abcdef")
    assert content_id(folder) == folder.name
    commit_manifest(folder, b"first")
    assert content_id(folder) == folder.name
    commit_manifest(folder, b"second")
    second = content_id(folder)
    assert second.startswith(f"{folder.name}+") and second != folder.name
    folder.remove(MANIFEST)
    assert content_id(folder) == second, "a repair is expected to give the latest content"
    commit_manifest(folder, b"first")
    assert content_id(folder) == folder.name
    folder.write_bytes(MANIFEST, b"written by hand")
    assert content_id(folder) not in (folder.name, second)


@pytest.mark.slow
def test_a_repair_that_finds_a_changed_world_makes_dependents_again(tmp_path):
    world, store = tmp_path / "world.json", Store(tmp_path / "work")
    write(world, [0, 1, 2, 4, 5, 6])
    go(world, store)
    assert total(world, store) == 18
    old = store.sub(workflow(world).plan(store)[1].path)
    visits = store.sub(workflow(world).plan(store)[0].path)

    flip_a_byte(visits)  # of rows 0 to 3, whose row 2 cannot be had any more
    write(world, [0, 1, 4, 5, 6])
    assert len(repair(visits)) == 1
    assert states(world, store) == [State.INTERRUPTED, State.FRESH]
    go(world, store)
    assert total(world, store) == 16
    assert Dataset.open(old).manifest.numbers["total"] == 18, "the old output stays beside it"

    flip_a_byte(visits)
    write(world, [0, 1, 2, 4, 5, 6])  # the first content comes back, and with it its dependents
    repair(visits)
    go(world, store)
    assert total(world, store) == 18
    assert store.sub(workflow(world).plan(store)[1].path) == old


@pytest.mark.slow
def test_a_repair_that_gives_the_same_bytes_leaves_dependents_fresh(tmp_path):
    world, store = tmp_path / "world.json", Store(tmp_path / "work")
    write(world, [0, 1, 2, 4, 5, 6])
    go(world, store)
    before = workflow(world).plan(store)[1].path
    changed = Path(store.uri, before, MANIFEST).stat().st_mtime_ns
    visits = store.sub(workflow(world).plan(store)[0].path)
    flip_a_byte(visits)
    repair(visits)
    go(world, store)
    assert workflow(world).plan(store)[1].path == before
    assert Path(store.uri, before, MANIFEST).stat().st_mtime_ns == changed


@pytest.mark.slow
def test_an_input_that_was_replaced_by_hand_is_seen_by_the_plan(tmp_path):
    world, store = tmp_path / "world.json", Store(tmp_path / "work")
    write(world, [0, 1, 2])
    go(world, store)
    visits = store.sub(workflow(world).plan(store)[0].path)
    manifest = visits.read(MANIFEST).replace(b'"num_rows":3', b'"num_rows":2')
    visits.write_bytes(MANIFEST, manifest)
    planned = workflow(world).plan(store)[1]
    assert planned.state is State.STALE and "input visits changed" in planned.reason

    visits.remove(GENERATIONS)  # without the record of generations the digest still tells
    planned = workflow(world).plan(store)[1]
    assert planned.state is State.STALE
    assert planned.reason == "made from another content of visits"
    with pytest.raises(StageError, match="to compute it again"):
        go(world, store)


@pytest.mark.slow
def test_inputs_that_do_not_belong_together_are_refused(tmp_path):
    world, store = tmp_path / "world.json", Store(tmp_path / "work")
    write(world, [0, 1, 2])
    go(world, store)
    visits, made = (store.sub(planned.path) for planned in workflow(world).plan(store))
    check_lineage({"visits": visits, "total": made})
    visits.write_bytes(MANIFEST, visits.read(MANIFEST) + b" ")
    with pytest.raises(ManifestError, match="total was made from another content of visits"):
        check_lineage({"visits": visits, "total": made})
