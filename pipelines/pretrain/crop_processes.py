"""Crops made by processes of their own, so that the interpreter of the training holds up none.

Threads that decode and cut hand one interpreter to each other and to the training between any two
calls of OpenCV. A process holds only the code that cuts (``dataprep.crop_process``), and its crops
come back without a copy, in memory that both map. The same request gives the same pixels in a
thread, so threads cut what no process can: the first batches, while the processes start, and those
of a process that is lost.
"""

import logging
import math
import os
import socket
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic
from typing import Final

import numpy as np
import pyarrow as pa

from dataprep.crop_batches import CropRequest, Pixels, crop_shapes
from dataprep.crop_process import split
from orchestration.errors import StageError
from pipelines.readers.columns import joined
from pipelines.readers.shared_buffers import SharedBuffers

logger = logging.getLogger(__name__)

PROCESS_BYTES: Final = 60_000_000
"Memory of a process before its first crop."
_DEPTH: Final = 2
"Requests that a process holds, so that it begins the next one without waiting for a thread."
_MAX_LOSSES: Final = 5
_LOSSES_S: Final = 600.0
"Seconds in which more processes than that are lost where something ends each of them."
_KEPT_BYTES: Final = str(1 << 26)
"Freed memory that a process keeps: to get it back from the system costs as much as to decode."


def num_processes(num_threads: int) -> int:
    """Return the number of processes that cut on so many cores; a single one needs none."""
    return num_threads if num_threads > 1 else 0


def num_callers(num_threads: int) -> int:
    """Return the number of threads that keep the processes of so many cores busy."""
    # One more than there are requests makes the rest of a micro-batch.
    return _DEPTH * num_processes(num_threads) + 1 if num_threads > 1 else num_threads


def crop_here(request: CropRequest, rows: pa.Table) -> list[Pixels]:
    """Return the crops of B rows with the columns ``jpeg`` and ``sample_id``, made by this thread.

    Returns:
        An array (B, size, size, 3) for each size of the request.

    Raises:
        ImageError: a stored image is damaged; the message names its sample.
    """
    crops = [np.empty(shape, np.uint8) for shape in crop_shapes(request, rows.num_rows)]
    columns = rows["jpeg"].to_pylist(), rows["sample_id"].to_pylist()
    request.cut(zip(*columns, strict=True), crops)
    return crops


class CropProcesses:
    """Makes crops as :func:`crop_here` does, in several processes that are started when needed."""

    def __init__(self, number: int) -> None:
        """Prepare ``number`` processes; more threads that call at the same time wait."""
        self.number = number
        self.num_losses = 0
        "Processes that ended by themselves."
        self._loss_times: deque[float] = deque(maxlen=_MAX_LOSSES + 1)
        self._ended = ""
        self._buffers = SharedBuffers()
        self._running: list[_Process] = []
        self._num_here = 0
        "Calls that are served by their own threads."
        self._change = threading.Condition()
        self._ending = threading.Event()
        weakref.finalize(self, _end, self._running, self._ending)

    def __call__(self, request: CropRequest, rows: pa.Table) -> list[Pixels]:
        """Return the crops of B rows with the columns ``jpeg`` and ``sample_id``.

        Returns:
            An array (B, size, size, 3) for each size of the request. Its memory is used again once
            nothing refers to it.

        Raises:
            ImageError: a stored image is damaged; the message names its sample.
            StageError: processes end by themselves again and again.
        """
        # Before the turn, so that a process that waits for one finds its images written.
        written = _Written(request, rows, self._buffers) if self.pids else None
        with self._a_turn() as process:
            found = None if process is None or written is None else self._by(process, written)
            if found is None:
                found = crop_here(request, rows)
                self._start_missing()  # only now: the first batch is waited for
        if isinstance(found, Exception):
            raise found
        return found

    @property
    def pids(self) -> list[int]:
        """Process ids of the processes that have started."""
        with self._change:
            return [process.pid for process in self._started()]

    @property
    def num_bytes(self) -> int:
        """Size of the memory in which crops come back."""
        return self._buffers.size

    @contextmanager
    def _a_turn(self) -> Iterator["_Process | None"]:
        """Wait for a turn; yield the process that has the fewest requests, or None for none.

        A process that has not started, or is lost, leaves its core to one of the callers.
        """
        with self._change:
            self._change.wait_for(self._has_turn)
            process = self._chosen()
            self._count(process, 1)
        try:
            yield process
        finally:
            with self._change:
                self._count(process, -1)
                self._change.notify()

    def _has_turn(self) -> bool:
        return self._has_core() or any(p.num_requests < _DEPTH for p in self._started())

    def _chosen(self) -> "_Process | None":
        least = min(self._started(), key=lambda p: p.num_requests, default=None)
        is_busy = least is None or least.num_requests > 0
        return None if is_busy and self._has_core() else least

    def _count(self, process: "_Process | None", change: int) -> None:
        if process is None:
            self._num_here += change
        else:
            process.num_requests += change

    def _has_core(self) -> bool:
        return self._num_here + len(self._started()) < self.number

    def _started(self) -> list["_Process"]:
        return [process for process in self._running if process.has_started]

    def _by(self, process: "_Process", written: "_Written") -> list[Pixels] | Exception | None:
        """Return the crops or what went wrong with an image; None if the process is lost."""
        try:
            error = process.cut(written)
        except (EOFError, OSError):
            self._lose(process)
            return None
        return written.crops if error is None else error

    def _start_missing(self) -> None:
        if self._lost_one_after_another():
            raise StageError(
                f"{self.num_losses} processes that cut images ended, the last one {self._ended}; "
                "look for their end in the machine's log, for example for lack of memory, or set "
                "train.cpus_per_worker=1, with which no such process is started"
            )
        with self._change:
            started = [
                _Process(self._buffers.file) for _ in range(self.number - len(self._running))
            ]
            self._running += started
        for process in started:
            threading.Thread(target=self._await, args=(process,), daemon=True).start()

    def _lost_one_after_another(self) -> bool:
        times = self._loss_times
        return len(times) > _MAX_LOSSES and times[-1] - times[0] < _LOSSES_S

    def _await(self, process: "_Process") -> None:
        """Let a process be used once it has started."""
        try:
            process.connection.recv()
        except (EOFError, OSError):
            self._lose(process)
        else:
            with self._change:
                process.has_started = True
                self._change.notify_all()

    def _lose(self, process: "_Process") -> None:
        if self._ending.is_set():
            return
        with self._change:
            if process not in self._running:
                return  # another of its requests has found out
            self._running.remove(process)
            self.num_losses += 1
            self._loss_times.append(monotonic())
            self._change.notify_all()
        self._ended = process.end()
        logger.warning("a process that cuts images ended %s; another one follows", self._ended)


class _Written:
    """A request, and the JPEGs of its images in the shared memory, with room for the crops."""

    def __init__(self, request: CropRequest, rows: pa.Table, buffers: SharedBuffers) -> None:
        jpegs, ends = joined(rows["jpeg"])
        room = sum(map(math.prod, crop_shapes(request, rows.num_rows)))
        buffer, pixels = buffers.take(room + len(jpegs))
        self.crops, behind = split(pixels, request, rows.num_rows)
        behind[: len(jpegs)] = jpegs
        sample_ids = rows["sample_id"].to_pylist()
        self.message = request, buffer.first, buffer.size, sample_ids, ends


class _Process:
    """A running ``dataprep.crop_process``."""

    def __init__(self, file: int) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            numbers = theirs.fileno(), file
            self._process = subprocess.Popen(
                # -P: no module of the working directory takes the place of another one.
                [sys.executable, "-P", "-m", "dataprep.crop_process", *map(str, numbers)],
                pass_fds=numbers,
                stdin=subprocess.DEVNULL,
                env=os.environ
                | {
                    "OMP_NUM_THREADS": "1",
                    "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
                    "MALLOC_TRIM_THRESHOLD_": _KEPT_BYTES,
                    "MALLOC_MMAP_THRESHOLD_": _KEPT_BYTES,
                },
            )
        self.connection = Connection(ours.detach())
        self.pid = self._process.pid
        self.has_started = False
        "Whether its code is loaded."
        self.num_requests = 0
        "Requests that it holds."
        self._sending = threading.Lock()
        self._num_sent = 0
        self._num_answers = 0
        self._answer = threading.Condition()

    def cut(self, written: _Written) -> Exception | None:
        """Write the crops; return what went wrong with an image, if anything.

        Raises:
            EOFError, OSError: the process has ended.
        """
        with self._sending:
            self.connection.send(written.message)
            number = self._num_sent
            self._num_sent += 1
        with self._answer:
            self._answer.wait_for(lambda: self._num_answers == number)
        try:
            error: Exception | None = self.connection.recv()
        finally:
            with self._answer:
                self._num_answers += 1
                self._answer.notify_all()
        return error

    def end(self) -> str:
        """End the process if it still runs; return how it ended, in words."""
        self._process.kill()  # it has nothing to clean up
        status = self._process.wait()
        return f"by signal {-status}" if status < 0 else f"with exit status {status}"


def _end(processes: list[_Process], ending: threading.Event) -> None:
    ending.set()
    for process in processes:
        process.end()
