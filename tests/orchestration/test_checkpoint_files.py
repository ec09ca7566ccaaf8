"""Which checkpoints are whole, and what belongs to them; trainings are in ``tests/crashes``."""

import json
import os
from pathlib import Path

import pytest

from orchestration.checkpoint_files import (
    RAY_TRAIN,
    checkpoint_name,
    damage_of,
    newest_whole,
    own_files,
    remove_damaged,
    remove_old,
    step_of,
    write_list,
)
from orchestration.storage.store import Store

LIST = "files-00000-of-00002.json"


def write(folder: Store, step: int, local: Path, num_workers: int = 2) -> Store:
    """Write a checkpoint as its workers do: each lists the files of its own folder."""
    checkpoint = folder.sub(f"{RAY_TRAIN}/{checkpoint_name(step)}")
    for rank in range(num_workers):
        mine = local / f"{step}-{num_workers}-{rank}"
        mine.mkdir(parents=True)
        (mine / f"__{rank}_0.distcp").write_bytes(os.urandom(1000))
        if rank == 0:
            (mine / ".metadata").write_bytes(b"metadata")
            (mine / "parts").mkdir()
            (mine / "parts" / "a.pt").write_bytes(b"weights")
        write_list(mine, rank, num_workers)
        for path, _ in Store(mine).walk():
            checkpoint.write_file(path, mine / path)
    return checkpoint


@pytest.fixture
def local(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("workers")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.remove("__1_0.distcp"), "__1_0.distcp is missing"),
        (lambda c: c.write_bytes("parts/a.pt", b""), "parts/a.pt has 0 bytes instead of 7"),
        (lambda c: c.write_bytes("parts/a.pt", b"WEIGHTS"), "the content of parts/a.pt has"),
        (lambda c: c.remove(LIST), f"{LIST} is missing"),
        (lambda c: [c.remove(name) for name in c.names("", ".json")], "no list of its files"),
        (lambda c: c.write_bytes(LIST, c.read(LIST)[:-9]), "a list of its files cannot be read"),
        (lambda c: c.write_bytes(LIST, b'[{"path": "x"}]'), "a list of its files cannot be read"),
        (lambda c: c.write_bytes(LIST, b"[7]"), "a list of its files cannot be read"),
        (lambda c: c.write_bytes(LIST, b"7"), "a list of its files cannot be read"),
        (lambda c: c.write_bytes(LIST, b"[" * 99_999), "a list of its files cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_not_used_and_the_one_before_is(store, local, change, words):
    first, second = (write(store, step, local) for step in (10, 20))
    said: list[str] = []
    assert newest_whole(store, tell=said.append) == second and said == []
    change(second)
    assert newest_whole(store, tell=said.append) == first
    (line,) = said
    assert line.startswith("checkpoint step_00000020 is not used: ") and words in line
    remove_damaged(store)
    assert store.folders(RAY_TRAIN) == [first.name]


def test_sizes_alone_need_no_read_of_the_files(store, local, monkeypatch):
    checkpoint = write(store, 10, local)
    checkpoint.write_bytes("parts/a.pt", b"WEIGHTS")
    assert damage_of(checkpoint) is not None
    monkeypatch.setattr(Store, "size_and_sha256", None)
    assert damage_of(checkpoint, read=False) is None


@pytest.mark.parametrize("leftover", [1, 3])
def test_files_of_an_attempt_with_another_number_of_workers_are_strays(store, local, leftover):
    checkpoint = write(store, 10, local, num_workers=leftover)
    checkpoint.write_bytes("anything", b"")
    write(store, 10, local)
    assert damage_of(checkpoint) is None
    own = {file.path: file.bytes for file in own_files(checkpoint)}
    lists = [f"files-0000{rank}-of-00002.json" for rank in range(2)]
    files = [".metadata", "__0_0.distcp", "__1_0.distcp", "parts/a.pt"]
    assert sorted(own) == sorted([*files, *lists])
    assert own == {path: size for path, size in checkpoint.walk() if path in own}
    remove_damaged(store)
    assert {path for path, _ in checkpoint.walk()} == set(own)
    assert damage_of(checkpoint) is None


def test_old_checkpoints_are_counted_from_the_newest_whole_one(store, local):
    made = [write(store, step, local) for step in (10, 20, 30, 40)]
    made[-1].remove(".metadata")
    remove_old(store, made[2], 2)
    assert [int(name[5:]) for name in store.folders(RAY_TRAIN)] == [20, 30, 40]
    assert newest_whole(store) == made[2] and step_of(made[2]) == 30


@pytest.mark.parametrize(
    ("num_to_keep", "keep_every", "kept"),
    [
        (1, None, [50]),
        (3, None, [30, 40, 50]),
        (1, 20, [20, 40, 50]),
        (2, 25, [40, 50]),
        (1, 10, [10, 20, 30, 40, 50]),
        (9, 7, [10, 20, 30, 40, 50]),
    ],
)
def test_multiples_of_a_number_of_steps_are_kept_beside_the_newest(
    store, local, num_to_keep, keep_every, kept
):
    made = [write(store, step, local, num_workers=1) for step in (10, 20, 30, 40, 50)]
    remove_old(store, made[-1], num_to_keep, keep_every)
    assert [int(name[5:]) for name in store.folders(RAY_TRAIN)] == kept


def test_a_checkpoint_that_could_not_be_saved_takes_the_place_of_none(store, local):
    made = [write(store, step, local) for step in (10, 20, 30, 40)]
    made[1].remove(LIST)
    made[2].remove(LIST)
    remove_old(store, made[3], 2, keep_every=30)
    assert [int(name[5:]) for name in store.folders(RAY_TRAIN)] == [10, 30, 40]
    made[3].remove(LIST)
    assert newest_whole(store) == made[0]


@pytest.mark.parametrize(
    "stray",
    [
        "files-backup.json",
        "files-00000-of-00002 (copy).json",
        "files-00000-of-00000.json",
        "files-00000-of-99999999999999.json",
    ],
)
def test_a_stray_list_makes_no_damaged_checkpoint_whole(store, local, stray):
    checkpoint = write(store, 10, local)
    checkpoint.write_bytes(stray, b"[]")
    assert damage_of(checkpoint) is None and len(own_files(checkpoint)) == 6
    checkpoint.remove("__1_0.distcp")
    assert damage_of(checkpoint) == "__1_0.distcp is missing"
    assert newest_whole(store) is None


@pytest.mark.parametrize("name", ["step_x", "step_", "00000040", "other"])
def test_other_folders_are_no_checkpoints(store, local, name):
    write(store, 10, local)
    store.write_bytes(f"{RAY_TRAIN}/{name}/x", b"")
    newest = newest_whole(store)
    assert newest is not None and step_of(newest) == 10
    remove_damaged(store)
    assert store.exists(f"{RAY_TRAIN}/{name}/x")


def test_a_folder_without_checkpoints_has_no_newest_one(store):
    assert newest_whole(store) is None
    remove_damaged(store)


def test_each_flipped_bit_of_a_list_is_noticed(tmp_path, local):
    """The list itself is not listed: a flip makes it unreadable or contradict the files."""
    checkpoint = write(Store(tmp_path), 10, local)
    whole = checkpoint.read(LIST)
    unnoticed = []
    for i in range(len(whole)):
        checkpoint.write_bytes(LIST, whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        if damage_of(checkpoint, read=True) is None:
            unnoticed.append(json.loads(checkpoint.read(LIST)))
    assert all(files == json.loads(whole) for files in unnoticed)
