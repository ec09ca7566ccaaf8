"""Making the next items in threads while the current one is processed."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def prefetch(
    make: Callable[[int], T], start: int, stop: int, depth: int = 2
) -> Iterator[Iterator[T]]:
    """Open an iterator of ``make(i)`` for each i from ``start`` to ``stop``, made ahead.

    The end of the block ends the threads. A generator that was left to the garbage collector would
    wait for them wherever it is collected, be it within the start of another thread.

    Args:
        make: makes an item; as many threads as ``depth`` call it at the same time.
        start: first item.
        stop: end of the items, exclusive.
        depth: number of items that are made before they are needed.

    Raises:
        BaseException: whatever ``make`` raised, at the item for which it was raised.
    """
    pool = ThreadPoolExecutor(depth, "prefetch")
    try:
        yield _items(pool, make, start, stop, depth)
    finally:
        pool.shutdown(cancel_futures=True)


def _items(
    pool: ThreadPoolExecutor, make: Callable[[int], T], start: int, stop: int, depth: int
) -> Iterator[T]:
    # The first item is waited for, so it has all cores to itself.
    numbers = iter(range(start, stop))
    ahead = deque(pool.submit(make, i) for i in islice(numbers, 1))
    while ahead:
        item = ahead.popleft().result()
        ahead.extend(pool.submit(make, i) for i in islice(numbers, depth - len(ahead)))
        yield item
