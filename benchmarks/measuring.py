"""What the benchmarks share: the ``--smoke`` switch, timing of contestants, and memory."""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path


def parse_options(parser: argparse.ArgumentParser, **smoke: object) -> argparse.Namespace:
    """Parse the command line; ``--smoke`` replaces options by those given here."""
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: seconds on a CPU")
    options = parser.parse_args()
    if options.smoke:
        vars(options).update(smoke)
    return options


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def alternating(rounds: int, *works: Callable[[], object]) -> list[float]:
    """Return the median seconds of each contestant; all run once per round.

    A first round warms caches and is not counted.
    """
    seconds = [[timed(work) for work in works] for _ in range(rounds + 1)][1:]
    return [statistics.median(of_one) for of_one in zip(*seconds, strict=True)]


def resident_bytes(field: str = "VmRSS") -> int:
    """Return the resident memory of this process, or with ``VmHWM`` its peak, in bytes.

    Unlike ``ru_maxrss`` it holds nothing of the process that started this one.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise KeyError(field)
