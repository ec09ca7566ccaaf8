"""The two engines that fetch URLs: ``native`` is ``dataprep.fetch``, ``img2dataset`` that library.

img2dataset's downloader is offered for comparison; ``dataprep.img2dataset_engine`` lists what it
cannot do. An engine lives as long as its worker and keeps its connections.
"""

import asyncio
import threading
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol

import uvloop

from dataprep.fetch import Fetcher
from dataprep.fetch_rules import FetchError, FetchRules
from dataprep.host_limiter import Limiter
from dataprep.images import ImageError, ImageRules, StoredImage, store_image
from dataprep.img2dataset_engine import fetch_with_img2dataset
from pipelines.ingest.cluster_host_limiter import LimiterShards
from pipelines.ingest.worker_limiter import WorkerLimiter

Outcome = StoredImage | FetchError
"The result of one URL: an image, or the reason why there is none."


class Engine(Protocol):
    """Fetches URLs and decodes, resizes and encodes their images."""

    def __call__(self, urls: Sequence[str]) -> list[Outcome]:
        """Return the outcome of each URL, in their order."""


class NativeEngine:
    """``dataprep.fetch`` in an event loop of its own, with threads that decode images."""

    def __init__(
        self, rules: FetchRules, images: ImageRules, make_limiter: Any, num_threads: int
    ) -> None:
        """Open the client.

        Args:
            rules: how URLs are fetched.
            images: how images are resized and encoded.
            make_limiter: called without arguments in the event loop; returns its host limiter.
            num_threads: number of threads that decode images.
        """
        self._threads = ThreadPoolExecutor(num_threads, "images")
        self._store = partial(_store_or_fail, images)
        self._loop = uvloop.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="fetcher", daemon=True).start()
        self._fetcher = self._await(_open(rules, make_limiter))

    def __call__(self, urls: Sequence[str]) -> list[Outcome]:
        """See :class:`Engine`."""
        outcomes: list[Outcome] = self._await(
            self._fetcher.fetch_all(urls, self._store, self._threads)
        )
        return outcomes

    def close(self) -> None:
        """Close every connection and end the loop."""
        self._await(self._fetcher.close())
        self._loop.call_soon_threadsafe(self._fetcher.limiter.close)
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _await(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class Img2datasetEngine:
    """img2dataset's downloader."""

    def __init__(self, rules: FetchRules, images: ImageRules) -> None:
        self.rules, self.images = rules, images

    def __call__(self, urls: Sequence[str]) -> list[Outcome]:
        """See :class:`Engine`."""
        return list(fetch_with_img2dataset(urls, self.rules, self.images))


def worker_limiter(shards: LimiterShards) -> Limiter:
    """Return a client of the cluster's limiter under a name of its own."""
    return WorkerLimiter(shards, uuid.uuid4().hex)


async def _open(rules: FetchRules, make_limiter: Any) -> Fetcher:
    return Fetcher(rules, make_limiter())


def _store_or_fail(rules: ImageRules, body: bytes) -> Outcome:
    try:
        return store_image(body, rules)
    except ImageError as error:
        return FetchError(error.reason, error.detail)
