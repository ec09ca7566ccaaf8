"""The lock of a workdir: one driver at a time, stale locks, and a driver that lost its lock."""

import json
import os
import subprocess
import sys
import time

import psutil  # noqa: F401  (a test pretends another platform, under which it cannot load)
import pytest

from orchestration.errors import LockError
from orchestration.storage import lock as lock_module
from orchestration.storage.lock import LOCK, held_since, take, workdir_lock


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(lock_module, "RENEW_EVERY_S", 0.05)
    monkeypatch.setattr(lock_module, "STALE_AFTER_S", 3)


def holder(store) -> dict:
    return json.loads(store.read(LOCK))


def until(condition) -> None:
    """Wait until a condition holds; only a fault takes this long."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def put(store, **changes) -> None:
    """Write a lock that another driver left."""
    with workdir_lock(store):
        left = holder(store)
    store.write_bytes(LOCK, json.dumps(left | changes).encode())


def test_the_second_of_two_drivers_gets_an_error_that_names_the_first(store):
    with workdir_lock(store):
        with pytest.raises(LockError, match=f"process {os.getpid()} on .* since 20"):
            take(store)
        until(lambda: holder(store)["renewed_at"] > holder(store)["taken_at"])
    assert not store.exists(LOCK)
    with workdir_lock(store):
        pass


@pytest.fixture(params=["linux", "darwin"])
def platform(request, monkeypatch) -> str:
    """The platform by which the lock chooses between /proc and psutil; both work on Linux."""
    monkeypatch.setattr(sys, "platform", request.param)
    return request.param


def test_a_process_is_identified_on_every_platform(store, platform):
    with workdir_lock(store), pytest.raises(LockError, match=f"process {os.getpid()} "):
        take(store)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    assert lock_module._process_started(ended.pid) is not None
    while lock_module._process_started(ended.pid) is not None:  # a zombie until it is waited for
        time.sleep(0.01)
    ended.wait()
    assert lock_module._process_started(ended.pid) is None


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff"])
def test_a_damaged_lock_says_what_to_do(store, data):
    store.write_bytes(LOCK, data)
    for use in (take, held_since):
        with pytest.raises(LockError, match="if no other command does, delete it"):
            use(store)
    assert store.read(LOCK) == data


def test_the_lock_of_an_ended_process_is_replaced_at_once(store):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    put(store, pid=gone.pid, process_started="1", renewed_at=time.time())
    with workdir_lock(store):
        assert holder(store)["pid"] == os.getpid()


def test_a_reused_process_id_does_not_hold_the_lock(store):
    put(store, process_started="1", renewed_at=time.time())
    with workdir_lock(store):
        assert holder(store)["process_started"] != "1"


def test_a_lock_of_another_machine_is_valid_until_it_is_old_and_unchanged(store):
    put(store, machine="elsewhere", host="far", renewed_at=time.time() + 60)
    with pytest.raises(LockError, match="on far"):
        take(store)
    left = holder(store) | {"renewed_at": time.time() - 60}
    store.write_bytes(LOCK, json.dumps(left).encode())
    with workdir_lock(store):
        assert holder(store)["machine"] != "elsewhere"


def test_a_lock_of_a_machine_with_a_late_clock_is_kept_while_it_is_renewed(store):
    put(store, machine="elsewhere", host="late", renewed_at=time.time() - 3600)
    renewing = subprocess.Popen(
        [sys.executable, "-c", _RENEW, store.uri, str(store.storage.endpoint_url or "")]
    )
    try:
        until(lambda: "beat" in holder(store))
        with pytest.raises(LockError, match="on late"):
            lock_module.RENEW_EVERY_S = 1.5
            take(store)
    finally:
        renewing.kill()
        renewing.wait()


_RENEW = """
import json, sys, time
from orchestration.storage.files import StorageParams
from orchestration.storage.store import Store
store = Store(sys.argv[1], StorageParams(endpoint_url=sys.argv[2] or None))
while True:
    left = json.loads(store.read("lock.json"))
    left["beat"] = left.get("beat", 0) + 1
    store.write_bytes("lock.json", json.dumps(left).encode())
    time.sleep(0.1)
"""


def test_a_driver_that_lost_its_lock_commits_nothing_more(store):
    with pytest.raises(LockError, match="taken by another"), workdir_lock(store) as lock:
        lock.check()
        store.write_bytes(LOCK, b'{"token": "other"}')
        until(lambda: lock.check() or False)
    assert store.read(LOCK) == b'{"token": "other"}'  # the other driver's lock is not removed
