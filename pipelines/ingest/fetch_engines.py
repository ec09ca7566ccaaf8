"""Fetching the rows of an index with either engine, in a worker that keeps its connections.

``native`` is ``dataprep.fetch``. ``img2dataset`` runs that library's own downloader, so that people
can choose it and both can be compared; ``dataprep.img2dataset_engine`` says what it cannot do.
"""

import asyncio
import threading
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol

import uvloop

from dataprep.fetch import Fetcher, FetchError, FetchRules
from dataprep.host_limiter import Limiter
from dataprep.images import ImageError, ImageRules, StoredImage, store_image
from dataprep.img2dataset_engine import fetch_with_img2dataset
from pipelines.ingest.cluster_host_limiter import ClusterGate

Outcome = StoredImage | FetchError


class Engine(Protocol):
    """Fetches images and stores them."""

    def __call__(self, urls: Sequence[str]) -> list[Outcome]:
        """Return what became of each URL, in their order."""


class NativeEngine:
    """``dataprep.fetch`` in an event loop of its own, with threads that decode beside it."""

    def __init__(
        self, rules: FetchRules, images: ImageRules, make_gate: Any, num_threads: int
    ) -> None:
        self._threads = ThreadPoolExecutor(num_threads, "images")
        self._store = partial(_store_or_fail, images)
        self._loop = uvloop.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="fetcher", daemon=True).start()
        self._fetcher = self._await(_open(rules, make_gate))

    def __call__(self, urls: Sequence[str]) -> list[Outcome]:
        """See :class:`Engine`."""
        outcomes: list[Outcome] = self._await(
            self._fetcher.fetch_all(urls, self._store, self._threads)
        )
        return outcomes

    def close(self) -> None:
        """Close every connection and end the loop."""
        self._await(self._fetcher.close())
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _await(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class Img2datasetEngine:
    """img2dataset's downloader, a slice at a time."""

    def __init__(self, rules: FetchRules, images: ImageRules) -> None:
        self.rules, self.images = rules, images

    def __call__(self, urls: Sequence[str]) -> list[Outcome]:
        """See :class:`Engine`."""
        return list(fetch_with_img2dataset(urls, self.rules, self.images))


def cluster_gate(desk: Any) -> Limiter:
    """Return a worker's gate at a desk."""
    return ClusterGate(desk, uuid.uuid4().hex)


async def _open(rules: FetchRules, make_gate: Any) -> Fetcher:
    return Fetcher(rules, make_gate())


def _store_or_fail(rules: ImageRules, body: bytes) -> Outcome:
    try:
        return store_image(body, rules)
    except ImageError as error:
        return FetchError(error.reason, error.detail)
