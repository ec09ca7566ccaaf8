"""The lock of a workdir: one driver at a time.

``lock.json`` names the driver that holds the lock. A conditional write creates it, or replaces a
stale one, so of two drivers one succeeds. The holder renews the lock from a thread. A lock is stale
if its process on this machine has ended, or if it was not renewed for some time. The clocks of two
machines differ, so a lock from another machine must also be seen unchanged for a while. A driver
that finds its lock taken commits nothing more.
"""

import json
import logging
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from orchestration.errors import LockError, StoreError
from orchestration.storage.store import Store

logger = logging.getLogger(__name__)

LOCK: Final = "lock.json"
RENEW_EVERY_S: Final = 10.0
STALE_AFTER_S: Final = 60.0


class Lock:
    """A lock that this driver holds; a thread renews it until it is released."""

    def __init__(self, workdir: Store, holder: dict[str, Any], version: str) -> None:
        self.workdir = workdir
        self._holder = holder
        self._version = version
        self._lost = False
        self._last_renewal = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="workdir lock", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Check that no other driver can have taken the lock.

        Raises:
            LockError: the lock was taken, or was not renewed for so long that it may be taken.
        """
        late = time.monotonic() - self._last_renewal > STALE_AFTER_S
        if self._lost or late:
            raise LockError(
                f"{self.workdir.uri}: the lock of this driver was "
                f"{'taken by another' if self._lost else 'not renewed in time'}; "
                "nothing more was committed, run again to continue"
            )

    def release(self) -> None:
        """Release the lock; :meth:`check` raises from then on."""
        self._stop.set()
        self._thread.join()
        if not self._lost:
            self._lost = True
            try:
                found = self.workdir.read_version(LOCK)
                if found is not None and found[1] == self._version:
                    self.workdir.remove(LOCK)
            except StoreError as error:
                logger.warning("the lock was not removed and stays until it is stale: %s", error)

    def _renew(self) -> None:
        while not self._stop.wait(RENEW_EVERY_S):
            self._holder["renewed_at"] = time.time()
            try:
                version = self.workdir.write_if(LOCK, _bytes(self._holder), self._version)
            except StoreError as error:
                logger.warning("the lock was not renewed: %s", error)
                continue
            if version is None:
                self._lost = True
                return
            self._version = version
            self._last_renewal = time.monotonic()


@contextmanager
def workdir_lock(workdir: Store) -> Iterator[Lock]:
    """Hold the lock of a workdir while the block runs.

    Raises:
        LockError: another driver holds the lock; the message names it and its start time.
    """
    lock = take(workdir)
    try:
        yield lock
    finally:
        lock.release()


def take(workdir: Store) -> Lock:
    """Take the lock of a workdir, replacing a stale one.

    Raises:
        LockError: another driver holds the lock.
    """
    now = time.time()
    holder = {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "process_started": _process_started(os.getpid()),
        "token": uuid.uuid4().hex,
        "taken_at": now,
        "renewed_at": now,
    }
    found = workdir.read_version(LOCK)
    if found is not None and not _is_stale(workdir, _holder(workdir, found[0]), found[1]):
        raise LockError(_who(workdir, _holder(workdir, found[0])))
    version = workdir.write_if(LOCK, _bytes(holder), found[1] if found else None)
    if version is None:
        other = workdir.read_version(LOCK)
        raise LockError(_who(workdir, _holder(workdir, other[0]) if other else {}))
    if found is not None:
        logger.warning("replaced a stale lock: %s", found[0].decode())
    return Lock(workdir, holder, version)


def held_since(workdir: Store) -> float | None:
    """Return when the present holder took the lock, in seconds since the epoch; None if nobody.

    A lock of another machine counts as held while it was renewed recently.
    """
    found = workdir.read_version(LOCK)
    if found is None:
        return None
    holder = _holder(workdir, found[0])
    if holder["machine"] == _machine():
        held = _process_started(holder["pid"]) == holder["process_started"]
    else:
        held = time.time() - float(holder["renewed_at"]) < STALE_AFTER_S
    return float(holder["taken_at"]) if held else None


def _holder(workdir: Store, data: bytes) -> dict[str, Any]:
    try:
        holder = json.loads(data)
    except ValueError:
        holder = None
    if not isinstance(holder, dict):
        raise LockError(
            f"{workdir.uri_of(LOCK)}: damaged, it does not say who uses the workdir; if no other "
            "command does, delete it"
        )
    return holder


def _is_stale(workdir: Store, holder: dict[str, Any], version: str) -> bool:
    if holder["machine"] == _machine():
        # Process ids are reused; the start time distinguishes two processes with one id.
        return _process_started(holder["pid"]) != holder["process_started"]
    if time.time() - float(holder["renewed_at"]) < STALE_AFTER_S:
        return False
    time.sleep(2 * RENEW_EVERY_S)
    found = workdir.read_version(LOCK)
    return found is not None and found[1] == version


def _machine() -> str:
    """Return a name for the scope of process ids: one boot of a machine and one container."""
    if sys.platform == "linux":
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    import psutil

    return f"{uuid.getnode():012x} {psutil.boot_time():.0f}"


def _process_started(pid: int) -> str | None:
    """Return the start time of a running process of this machine, or None if it has ended.

    On Linux the time is in clock ticks since boot, which no correction of the clock changes;
    psutil would convert it to the time of day.
    """
    if sys.platform == "linux":
        try:
            after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if after_name[0] == "Z" else after_name[19]
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else str(process.create_time())
    except psutil.NoSuchProcess:
        return None


def _who(workdir: Store, holder: dict[str, Any]) -> str:
    if not holder:
        return f"{workdir.uri}: another driver has just taken the lock; wait for it or stop it"
    since = datetime.fromtimestamp(holder["taken_at"], UTC).isoformat(" ", "seconds")
    return (
        f"{workdir.uri}: locked by process {holder['pid']} on {holder['host']} since {since}; "
        f"wait for it or stop it (its lock is stale {STALE_AFTER_S:.0f} s after its end)"
    )


def _bytes(holder: dict[str, Any]) -> bytes:
    return json.dumps(holder, sort_keys=True).encode()
