"""Making the next items in threads while the current one is processed."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def prefetch(make: Callable[[int], T], start: int, stop: int, depth: int = 2) -> Iterator[T]:
    """Yield ``make(i)`` for each i from ``start`` to ``stop``, made up to ``depth`` items ahead.

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
        ahead = deque(pool.submit(make, i) for i in range(start, min(start + depth, stop)))
        for following in range(start + depth, stop + depth):
            item = ahead.popleft().result()
            if following < stop:
                ahead.append(pool.submit(make, following))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
