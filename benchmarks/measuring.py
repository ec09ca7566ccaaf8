"""What the benchmarks share: the ``--smoke`` switch and timing of alternating contestants."""

import argparse
import statistics
import time
from collections.abc import Callable


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
