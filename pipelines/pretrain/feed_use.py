"""How busy the feed of a worker is, and what makes it faster if the training waits for it."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, ParamSpec, TypeVar

R = TypeVar("R")
P = ParamSpec("P")

_BUSY: Final = 0.7
"Fraction of the threads' time from which on more threads would help."
_LATE: Final = 0.3
"Fraction of the time, with a thread that waits for row groups, from which on reads are late."


class FeedUse:
    """Seconds that the threads of a feed spend on building samples and on waiting for reads."""

    def __init__(
        self,
        num_threads: int,
        clock: Callable[[], float] = time.perf_counter,
        *,
        section: str = "train",
    ) -> None:
        """Begin to count.

        Args:
            num_threads: number of threads that build.
            clock: gives seconds.
            section: of the recipe, which sets the number of threads.
        """
        self.section = section
        self.num_threads = num_threads
        "Number of threads that build."
        self.build_s = self.read_s = 0.0
        "Seconds since the last call of :meth:`remedy`."
        self._clock = clock
        self._lock = threading.Lock()

    def building(self, build: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call ``build`` and count its time; several threads may do so at once."""
        start = self._clock()
        try:
            return build(*args, **kwargs)
        finally:
            with self._lock:
                self.build_s += self._clock() - start

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Count the time in which a block waits for row groups."""
        start = self._clock()
        try:
            yield
        finally:
            with self._lock:
                self.read_s += self._clock() - start

    def remedy(self, seconds: float, lighter: Sequence[str]) -> str:
        """Return what to set so that the feed is faster; begin to count anew.

        Args:
            seconds: time since the last call.
            lighter: settings that make samples cheaper to build.
        """
        with self._lock:
            busy = self.build_s / (seconds * self.num_threads)
            late = self.read_s / seconds
            self.build_s = self.read_s = 0.0
        if busy < _BUSY and late > _LATE:
            return (
                f"row groups arrive late (waited for in {late:.0%} of the time); keep the token "
                "datasets on a faster store, or on a disk of the machine"
            )
        words = f"{self.num_threads} thread{'s' if self.num_threads > 1 else ''}"
        return (
            f"{words} that build samples are busy in {min(busy, 1):.0%} of the time; raise "
            f"{' or set '.join([f'{self.section}.cpus_per_worker', *lighter])}"
        )
