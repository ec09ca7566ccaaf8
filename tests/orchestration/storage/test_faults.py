"""Failures of a store: transient ones are retried, lasting ones name the object."""

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from orchestration.dataset import Dataset
from orchestration.errors import StoreError
from orchestration.manifest import read_parts
from orchestration.storage.files import StorageParams
from orchestration.storage.store import Store
from tests.committing import commit_tables
from tests.faulty import FaultyProxy, failing
from tests.s3 import BUCKET

TRANSIENT = ("500", "503", "reset", "silence", "lost answer")


@pytest.fixture
def faulty(s3_endpoint) -> Iterator[tuple[FaultyProxy, Store, Store]]:
    """A proxy, a store behind it, and the same store without it."""
    with failing(s3_endpoint) as (proxy, endpoint):
        uri = f"s3://{BUCKET}/{uuid.uuid4().hex}"
        storage = StorageParams(endpoint_url=endpoint, read_timeout_s=1, max_attempts=4)
        yield proxy, Store(uri, storage), Store(uri, StorageParams(endpoint_url=s3_endpoint))


@pytest.mark.parametrize("fault", TRANSIENT)
def test_a_transient_fault_is_retried(faulty, fault):
    proxy, store, direct = faulty
    direct.write_bytes("a/old", b"old")
    proxy.fail_next(2, fault)
    store.write_bytes("a/new", b"new")
    assert direct.read("a/new") == b"new"
    proxy.fail_next(2, fault)
    assert store.read("a/old") == b"old"
    proxy.fail_next(2, fault)
    assert store.names("a", "") == ["new", "old"]
    proxy.fail_next(2, fault)
    assert store.open("a/old").read() == b"old"
    proxy.fail_next(1, fault)
    version = store.write_if("lock", b"mine", None)
    assert version is not None and direct.read("lock") == b"mine"
    proxy.fail_next(1, fault)
    assert store.write_if("lock", b"other", None) is None
    assert proxy.num_faults > 0


@pytest.mark.parametrize("fault", ["500", "503", "reset"])
def test_a_lasting_fault_names_the_object_and_leaves_no_file(faulty, fault):
    proxy, store, direct = faulty
    direct.write_bytes("a/old", b"old")
    for ask in (
        lambda: store.write_bytes("a/new", b"new"),
        lambda: store.read("a/old"),
        lambda: store.names("a", ""),
        lambda: store.write_if("a/lock", b"", None),
    ):
        proxy.fail_next(1000, fault)
        with pytest.raises(StoreError, match=f"{store.uri}/a"):
            ask()
    assert direct.names("a", "") == ["old"]


def test_no_message_contains_a_secret(faulty):
    proxy, store, _ = faulty
    proxy.fail_next(1000, "500")
    with pytest.raises(StoreError) as error:
        store.write_bytes("a", b"")
    chain, messages = error.value, []
    while chain is not None:
        messages.append(repr(chain))
        chain = chain.__cause__ or chain.__context__
    assert "hidden-secret" not in "".join(messages) + repr(store) + repr(vars(store))


def test_an_outdated_listing_loses_no_slice(faulty):
    """The parts of a stage are known from the workers that committed them, not from a listing."""
    proxy, store, direct = faulty
    proxy.choose = lambda method, path: "stale list"
    tables = [pa.table({"n": [i, i + 1]}) for i in range(5)]
    dataset = commit_tables(store, tables, row_group_rows=2)
    assert len(read_parts(store)) == 4 and len(read_parts(direct)) == 5
    assert dataset.read()["n"].to_pylist() == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]
    assert Dataset.open(direct).num_rows == 10


def test_an_upload_that_fails_halfway_is_aborted(faulty, monkeypatch):
    from orchestration.storage import s3_files

    monkeypatch.setattr(s3_files, "_PART_BYTES", 5 << 20)
    proxy, store, direct = faulty
    puts = []

    def choose(method: str, path: str):
        if "partNumber" in path:
            puts.append(path)
            return "500" if "partNumber=2" in path else None
        return None

    proxy.choose = choose
    with pytest.raises(StoreError, match="big"):
        store.write_bytes("big", bytes(12 << 20))
    assert len(puts) > 1 and not direct.exists("big")
    proxy.choose = lambda method, path: None
    listed = store.files.client.list_multipart_uploads(Bucket=BUCKET)
    assert not [u for u in listed.get("Uploads", []) if u["Key"].startswith(store.name)]


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """A file size limit stands for a full disk: the kernel refuses further bytes."""
    store = Store(tmp_path)
    store.write_bytes("a", b"old")
    done = subprocess.run(
        [sys.executable, "-c", _WRITE_TOO_MUCH, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert f"{tmp_path}/a" in done.stdout and "too large" in done.stdout, done.stderr
    assert store.read("a") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


_WRITE_TOO_MUCH = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
from orchestration.errors import StoreError
from orchestration.storage.store import Store
try:
    Store(sys.argv[1]).write_bytes("a", bytes(1 << 20))
except StoreError as error:
    sys.stdout.write(str(error))
"""
