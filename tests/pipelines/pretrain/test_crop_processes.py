"""Crops of processes: the pixels of threads, whatever happens to a process, and none is left."""

import contextlib
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import psutil
import pyarrow as pa
import pytest

from dataprep.crop_batches import CropRequest, NewCrops, StoredCrops
from dataprep.image_errors import ImageError
from orchestration.errors import StageError
from pipelines.pretrain.crop_processes import CropProcesses, crop_here
from pipelines.readers.prefetch import prefetch
from tests.pipelines.pretrain.test_feed import PARAMS, equal, make_feed, text, tokens

__all__ = ["text"]  # a fixture

ROWS = tokens(8)["image"]
UNIFORMS = np.random.default_rng(1).random((8, 4))
VIEWS = np.array(ROWS["views"].to_pylist()).reshape(8, -1, 5)[:, 0]
STORED = StoredCrops(VIEWS, 32, 0.4, UNIFORMS)
NEW = NewCrops([f"7/{i}" for i in range(8)], 5, 0.3, True, (32, 48), 0.4, UNIFORMS)
_WAIT_S = 60.0


def until(is_true: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    end = time.monotonic() + _WAIT_S
    while not is_true():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def started(number: int) -> CropProcesses:
    processes = CropProcesses(number)
    processes(STORED, ROWS)
    until(lambda: len(processes.pids) == number)
    return processes


@contextlib.contextmanager
def no_more_losses(processes: CropProcesses) -> Iterator[None]:
    """Check that all crops of a block are made by processes."""
    before = processes.num_losses, processes.pids
    yield
    assert (processes.num_losses, processes.pids) == before


def assert_same(found: list[np.ndarray], request: CropRequest, rows: pa.Table) -> None:
    for some, expected in zip(found, crop_here(request, rows), strict=True):
        assert np.array_equal(some, expected)


@pytest.mark.parametrize("request_", [STORED, NEW], ids=["stored", "new"])
@pytest.mark.parametrize("rows", [slice(0, 8), slice(3, 4), slice(5, 8)])
def test_a_process_gives_the_pixels_of_a_thread(request_, rows):
    processes = started(1)
    some = ROWS.slice(rows.start, rows.stop - rows.start)
    changed = {"uniforms": UNIFORMS[rows]}
    changed |= {"views": VIEWS[rows]} if request_ is STORED else {"keys": NEW.keys[rows]}
    of_some = type(request_)(**{**vars(request_), **changed})
    with no_more_losses(processes):
        assert_same(processes(of_some, some), of_some, some)


def test_a_feed_gives_the_batches_of_one_thread_from_whatever_step_it_goes_on(tmp_path, text):
    params = replace(PARAMS, color_jitter=0.4)
    alone = make_feed(tmp_path / "1", text, params=params)
    many = make_feed(tmp_path / "2", text, params=params, num_threads=2)
    assert isinstance(many.crop, CropProcesses)
    many.step(0)
    until(lambda: len(many.crop.pids) == 2)
    with no_more_losses(many.crop):
        for start in (1, 7):
            with prefetch(many.step, start, start + 8) as steps:
                for step, batches in enumerate(steps, start):
                    assert equal(batches, alone.step(step)), step


def test_crops_are_kept_until_they_are_dropped_and_their_memory_is_used_again():
    processes, kept = started(2), []
    for i in range(6):
        request = StoredCrops(VIEWS, 32, 0.1 * i, UNIFORMS)
        (crops,) = processes(request, ROWS)
        kept.append((request, crops[2:]))  # a part keeps the whole
        del crops
    for request, crops in kept:
        assert np.array_equal(crops, crop_here(request, ROWS)[0][2:])
    size = processes.num_bytes
    kept.clear()
    del crops
    gc.collect()
    for _ in range(20):
        processes(STORED, ROWS)
    assert processes.num_bytes == size


@pytest.mark.parametrize("jpeg", [b"", b"\xff\xd8\xff", bytes(99)])
def test_a_damaged_image_is_named_and_the_process_goes_on(jpeg):
    processes = started(1)
    jpegs = [*ROWS["jpeg"].to_pylist()[:7], jpeg]
    damaged = ROWS.set_column(ROWS.column_names.index("jpeg"), "jpeg", [jpegs])
    with no_more_losses(processes):
        with pytest.raises(ImageError, match="stored image of row/7 is damaged"):
            processes(STORED, damaged)
        assert_same(processes(STORED, ROWS), STORED, ROWS)


def test_a_killed_process_is_replaced_and_no_crop_is_lost(caplog):
    processes = started(2)
    for _ in range(2):
        killed = processes.pids[0]
        os.kill(killed, signal.SIGKILL)
        until(lambda pid=killed: not is_running(pid))
        # Both are asked, and the one that was killed does not answer.
        for _ in range(4):
            assert_same(processes(NEW, ROWS), NEW, ROWS)
        until(lambda: len(processes.pids) == 2)
        assert killed not in processes.pids
    assert processes.num_losses == 2 and "ended by signal 9" in caplog.text


@pytest.mark.parametrize("is_killed", [False, True], ids=["", "killed"])
def test_many_callers_at_once_each_get_the_crops_of_their_request(is_killed):
    processes = started(2)
    requests = [StoredCrops(VIEWS, 32, 0.01 * i, UNIFORMS) for i in range(60)]
    ended = threading.Event()
    killer = threading.Thread(target=kill_now_and_then, args=(processes, ended))
    if is_killed:
        killer.start()
    with ThreadPoolExecutor(7) as callers:
        found = list(callers.map(lambda request: processes(request, ROWS), requests))
    ended.set()
    if is_killed:
        killer.join()
    assert (processes.num_losses > 0) == is_killed
    for request, crops in zip(requests, found, strict=True):
        assert_same(crops, request, ROWS)


def kill_now_and_then(processes: CropProcesses, ended: threading.Event) -> None:
    """Kill two processes, each as soon as it has started."""
    for _ in range(2):
        until(lambda: bool(processes.pids) or ended.is_set())
        for pid in processes.pids[:1]:
            os.kill(pid, signal.SIGKILL)
            until(lambda pid=pid: pid not in processes.pids or ended.is_set())


def test_processes_that_are_killed_again_and_again_end_the_training():
    processes = started(1)
    with pytest.raises(StageError, match=r"the last one by signal 9; look for .*machine's log"):
        for _ in range(20):
            until(lambda: bool(processes.pids))
            os.kill(processes.pids[0], signal.SIGKILL)
            assert_same(processes(STORED, ROWS), STORED, ROWS)


def test_processes_that_are_killed_now_and_then_are_replaced(monkeypatch):
    clock = itertools.count(0, 200)  # six losses within a thousand seconds
    monkeypatch.setattr("pipelines.pretrain.crop_processes.monotonic", lambda: float(next(clock)))
    processes = started(1)
    for _ in range(8):
        until(lambda: bool(processes.pids))
        os.kill(processes.pids[0], signal.SIGKILL)
        assert_same(processes(STORED, ROWS), STORED, ROWS)
    assert processes.num_losses >= 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_job_is_left_to_the_training(number):
    processes = started(1)
    os.kill(processes.pids[0], number)
    with no_more_losses(processes):
        for _ in range(3):
            assert_same(processes(STORED, ROWS), STORED, ROWS)


def test_processes_end_with_their_feed():
    processes = started(2)
    pids = processes.pids
    del processes
    gc.collect()
    assert not any(map(is_running, pids))


TRAINING = """
import sys, time
import numpy as np, pyarrow as pa
from dataprep.crop_batches import NewCrops
from dataprep.images import encode_jpeg
from pipelines.pretrain.crop_processes import CropProcesses
rows = pa.table({"sample_id": ["a"], "jpeg": [encode_jpeg(np.zeros((40, 40, 3), np.uint8), 90)]})
request = NewCrops(["a"], 1, 0.5, True, (32,), 0.4, np.full((1, 4), 0.5))
processes = CropProcesses(2)
while len(processes.pids) < 2:
    processes(request, rows)
print(*processes.pids, flush=True)
end = sys.stdin.readline().strip()
if end == "raise":
    raise SystemError("the training fails")
while end == "wait":
    processes(request, rows)
"""


@pytest.mark.parametrize("end", ["return", "raise", "SIGTERM", "SIGKILL"])
def test_no_process_outlives_the_training_however_it_ends(end):
    with subprocess.Popen(
        [sys.executable, "-c", TRAINING],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as training:  # fmt: skip
        pids = [int(pid) for pid in training.stdout.readline().split()]
        assert len(pids) == 2 and all(map(is_running, pids))
        is_signal = end.startswith("SIG")
        training.stdin.write("wait\n" if is_signal else f"{end}\n")
        training.stdin.flush()
        if is_signal:
            training.send_signal(getattr(signal, end))
        training.wait(_WAIT_S)
    until(lambda: not any(map(is_running, pids)))


def test_a_process_loads_only_what_cuts():
    """Its memory is counted in plans, and it is ready soon."""
    loaded = subprocess.check_output(
        [sys.executable, "-c", "import dataprep.crop_process, sys; print(*sys.modules)"], text=True
    )
    assert not {"torch", "ray", "pyarrow", "pandas", "mlflow", "model"} & set(loaded.split())


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
