"""Speed and memory of a training: rates over each row of the history, for MLflow and the console.

They are wall-clock numbers, so they are no part of the history: two runs of a recipe commit the
same bytes. The first step after a start is left out, since it compiles kernels and waits for the
first batches; so is the time in which checkpoints are saved.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

import torch
import torch.distributed as dist

from model.training.device_rates import DevicePeak, device_peak
from model.training.useful_work import Work
from orchestration.reporting.usage import peak_memory
from orchestration.session import Session

T = TypeVar("T")
Clock = Callable[[], float]

_MAX_WAIT_FRACTION: Final = 0.05
_WINDOW_S: Final = 60.0
"Shortest time over which waiting is judged."
_WARN_EVERY_S: Final = 600.0


class SpeedMeter:
    """Measures the steps of one worker; the first worker's numbers stand for all.

    Every step waits for all workers, so they take the same time. Nothing is exchanged in a step.
    """

    def __init__(self, session: Session, dtype: torch.dtype, clock: Clock = time.monotonic) -> None:
        """Begin with a session's first step.

        Args:
            session: of the worker.
            dtype: type of the network's products.
            clock: gives seconds.
        """
        self.words = ""
        "The last rates, shortened for the progress line."
        self.peak: DevicePeak | None = None
        "What the device can reach; known after the first step whose operations are counted."
        self._session, self._dtype, self._clock = session, dtype, clock
        self._began: float | None = None
        self._start_interval()
        self._window_s = self._window_waits_s = 0.0
        self._warned_at: float | None = None

    def _start_interval(self) -> None:
        self._num_steps = 0
        self._waits_s = self._paused_s = 0.0
        self._samples = self._tokens = self._flops = 0.0

    def waiting_for(self, batches: Iterator[T]) -> Iterator[T]:
        """Yield the batches and measure how long each keeps the training waiting."""
        while True:
            start = self._clock()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self._waits_s += self._clock() - start
            yield batch

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time of a block out."""
        start = self._clock()
        yield
        self.leave_out(self._clock() - start)

    def leave_out(self, seconds: float) -> None:
        """Leave so many of the seconds that have passed out."""
        self._paused_s += seconds

    def add(self, work: Work) -> None:
        """Count one step, which has just ended."""
        if self._began is None:
            if work.flops is not None and self._session.rank == 0:
                self.peak = device_peak(self._session.device, self._dtype)
                self._session.messages.tag("device", self.peak.device)
                self._session.messages.tag("device_peak", str(self.peak))
            self._start_interval()
            self._began = self._clock()
            return
        self._num_steps += 1
        self._samples += work.num_samples
        self._tokens += work.num_tokens
        self._flops += work.flops or 0.0

    def take(self, step: int, slow_feed: Callable[[float], str]) -> dict[str, float]:
        """Return the metrics of the steps since the last call; nothing after the first step.

        A feed that keeps the training waiting is warned of.

        Args:
            step: number of steps done.
            slow_feed: returns what makes the feed faster, given the seconds since the last call.
        """
        if self._began is None or not self._num_steps:
            return {}
        now = self._clock()
        seconds = max(now - self._began - self._paused_s, 1e-9)
        waits = min(self._waits_s / seconds, 1.0)
        rates = {
            "speed/samples_per_s": self._samples / seconds,
            "speed/tokens_per_s": self._tokens / seconds,
            "speed/step_s": seconds / self._num_steps,
            "speed/data_wait_fraction": waits,
        }
        used = ""
        if self.peak is not None and self._flops:
            fraction = self._flops / seconds / self.peak.flops
            if self.peak.is_published:
                rates["speed/mfu"], used = fraction, f"MFU {fraction:.0%}, "
            else:
                rates["speed/measured_peak_fraction"] = fraction
                used = f"{fraction:.0%} of the matmul rate, "
        self.words = f"{rates['speed/samples_per_s']:.4g} samples/s, {used}waits {waits:.0%}"
        self._judge_waiting(step, seconds, now, slow_feed)
        self._start_interval()
        self._began = self._clock()
        return rates | memory(self._session.device)

    def _judge_waiting(
        self, step: int, seconds: float, now: float, slow_feed: Callable[[float], str]
    ) -> None:
        self._window_s += seconds
        self._window_waits_s += self._waits_s
        if self._window_s < _WINDOW_S:
            return
        fraction, remedy = self._window_waits_s / self._window_s, slow_feed(self._window_s)
        self._window_s = self._window_waits_s = 0.0
        is_due = self._warned_at is None or now - self._warned_at >= _WARN_EVERY_S
        if fraction > _MAX_WAIT_FRACTION and is_due:
            self._warned_at = now
            self._session.messages.warn(
                "data_wait",
                f"steps up to {step} wait for data in {fraction:.0%} of their time: {remedy}",
            )


def memory(device: torch.device) -> dict[str, float]:
    """Return the peak memory of this worker's process in bytes, on the host and on its device."""
    found = {"memory/host_bytes": float(peak_memory())}
    if device.type == "cuda":
        found["memory/device_bytes"] = float(torch.cuda.max_memory_allocated(device))
    return found


def largest_memory(device: torch.device) -> dict[str, float]:
    """Return the largest :func:`memory` of all workers; every worker must call it."""
    found = memory(device)
    if dist.is_initialized() and dist.get_world_size() > 1:
        values = torch.tensor(list(found.values()), dtype=torch.float64, device=device)
        dist.all_reduce(values, dist.ReduceOp.MAX)
        found = dict(zip(found, values.tolist(), strict=True))
    return {name.replace("/", "/largest_"): value for name, value in found.items()}
