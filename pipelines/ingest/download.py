"""Download: index rows → stored images.

In: the index of one source. Out: ``data`` (see ``dataprep.schemas.IMAGES``) and ``rejects``; every
row of the index ends in exactly one of the two. Drops: the server's answer (``http_404``,
``timeout``, ``dns``, …, see ``dataprep.fetch_rules``) or the image itself (``undecodable``,
``too_small``, …, see ``dataprep.images``). Duplicates and captions are judged in ``curate``.
A slice that reaches almost no host fails and is tried again: the network here is down, rather than
thousands of sites.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from dataprep.addresses import AddressRules
from dataprep.fetch_rules import UNREACHABLE, FetchError, FetchRules
from dataprep.host_limiter import HostRules
from dataprep.images import ImageError, StoredImage
from dataprep.proxies import Proxies
from dataprep.robots import AGENT
from dataprep.schemas import IMAGES, REJECTS, reject
from orchestration import Context, Dataset, Output, Slice, Stage, feeding
from orchestration.errors import StageError
from orchestration.params import OPERATIONAL, StageParams
from orchestration.reporting.usage import WORKER_BYTES, Expected, Workers
from orchestration.retries import rejected_rows, retry
from orchestration.slices import read_slice, row_slices
from orchestration.storage.store import Store
from orchestration.suspects import KILLED_WORKER
from pipelines.ingest.cluster_host_limiter import LimiterShards, num_shards, open_limiter
from pipelines.ingest.fetch_engines import Engine, Img2datasetEngine, NativeEngine, worker_limiter
from pipelines.ingest.local_images import LocalImagesEngine, refuse_urls
from pipelines.ingest.store_images import StoreParams, image_row, slice_bytes, stored_output
from pipelines.readers.expected_memory import DECODING_BYTES

logger = logging.getLogger(__name__)

_MIN_ROWS_OF_AN_OUTAGE: Final = 32
_ROW_GROUP_ROWS: Final = 256
_BODY_BYTES: Final = 1_000_000
"Of a connection: a large original as it arrives."


class OutageError(RuntimeError):
    """Almost no request of a slice was answered."""


class HostParams(StageParams):
    """Limits for each host, over the whole cluster."""

    max_concurrent_requests: int = Field(default=8, ge=1)
    "Largest number of open requests to one host, over the whole cluster."
    max_requests_per_second: float = Field(default=50, gt=0)
    "Largest rate of requests to one host, over the whole cluster."
    max_consecutive_failures: int = Field(default=20, ge=1)
    "Largest number of consecutive unanswered requests before the host is paused."
    pause_s: float = Field(default=60, gt=0)
    "First pause of a host before it is probed, and the longest Retry-After that is waited for."

    def rules(self) -> HostRules:
        """Convert to the rules of ``dataprep``."""
        return HostRules(**self.model_dump())


class Params(StageParams):
    """How images are fetched and stored."""

    contact: Annotated[str | None, OPERATIONAL] = Field(default=None, min_length=1)
    "E-mail address or URL in the User-Agent header; needed wherever URLs are fetched."
    engine: Literal["native", "img2dataset"] = "native"
    "Program that fetches: `native` (dataprep.fetch) or img2dataset's downloader."
    connect_timeout_s: Annotated[float, OPERATIONAL] = Field(default=5.0, gt=0)
    "Longest time in seconds to open a connection."
    read_timeout_s: Annotated[float, OPERATIONAL] = Field(default=10.0, gt=0)
    "Longest time in seconds between two pieces of a body."
    total_timeout_s: Annotated[float, OPERATIONAL] = Field(default=30.0, gt=0)
    "Longest time in seconds of one attempt, redirects included."
    max_attempts: Annotated[int, OPERATIONAL] = Field(default=3, ge=1)
    "Largest number of attempts per image."
    max_bytes: int = Field(default=50 << 20, ge=1)
    "Largest size in bytes of a body; larger ones are rejects."
    max_redirects: int = Field(default=5, ge=0)
    "Largest number of redirects followed per attempt."
    obey_robots_txt: bool = False
    "Whether images that a site's robots.txt forbids are rejects."
    max_unreachable_fraction: Annotated[float, OPERATIONAL] = Field(default=0.95, gt=0, le=1)
    "Fraction of unanswered requests above which a slice fails as an outage; 1 disables the check."
    slice_rows: int = Field(default=2048, ge=1)
    "Number of index rows per slice."
    store: StoreParams = StoreParams()
    "How images are resized and encoded."
    hosts: Annotated[HostParams, OPERATIONAL] = HostParams()
    "Limits for each host."
    max_connections: Annotated[int, OPERATIONAL] = Field(default=64, ge=1)
    "Largest number of open connections of an actor."
    num_actors: Annotated[int, OPERATIONAL] = Field(default=2, ge=1)
    "Number of actors; with two per core, one fetches while the other finishes its slice."
    cpus_per_actor: Annotated[float, OPERATIONAL] = Field(default=0.5, gt=0)
    "Number of CPU cores that Ray reserves for an actor."
    threads_per_actor: Annotated[int, OPERATIONAL] = Field(default=2, ge=1)
    "Number of threads of an actor that decode and encode images."
    allow_private_addresses: Annotated[bool, OPERATIONAL] = False
    "Whether URLs may lead to private or local network addresses."
    images_folder: Annotated[str, OPERATIONAL] = "."
    "Folder at which relative paths of images begin; an own list replaces it by its own folder."
    connect_to: Annotated[dict[str, str], OPERATIONAL] = Field(default_factory=dict)
    "ADDRESS:PORT to connect to by pattern of the host name, in place of DNS."

    @model_validator(mode="after")
    def _engine_reads_robots_txt(self) -> "Params":
        if self.obey_robots_txt and self.engine == "img2dataset":
            raise ValueError("the engine img2dataset reads no robots.txt; use engine: native")
        return self

    def rules(self) -> FetchRules:
        """Convert to the rules of ``dataprep``."""
        return FetchRules(
            user_agent=f"{AGENT}/0.1 (+{self.contact})",
            connect_timeout_s=self.connect_timeout_s,
            read_timeout_s=self.read_timeout_s,
            total_timeout_s=self.total_timeout_s,
            max_bytes=self.max_bytes,
            max_redirects=self.max_redirects,
            max_attempts=self.max_attempts,
            max_connections=self.max_connections,
            obey_robots_txt=self.obey_robots_txt,
            addresses=AddressRules(self.allow_private_addresses, self.connect_to),
        )


def stage(params: Params, *, name: str, index: Stage) -> Stage:
    """Declare the stage for the source ``name``."""
    return Stage(
        f"download/{name}",
        lambda context: run(context, params),
        params,
        feeding(index=index),
        version=6,
        retry=lambda context, reasons: retry_rejects(context, params, reasons),
        workers=partial(workers, params),
    )


def workers(params: Params, inputs: Mapping[str, Expected]) -> Workers:
    """Predict an actor's memory: the images of a slice, bodies that arrive, and decodes."""
    arriving = params.max_connections * _BODY_BYTES + params.threads_per_actor * DECODING_BYTES
    return Workers(WORKER_BYTES + slice_bytes(params.slice_rows) + arriving, params.num_actors)


def run(context: Context, params: Params) -> None:
    """Fetch each slice of the index in an actor that keeps its connections."""
    index = context.input("index")
    slices = row_slices(index, params.slice_rows)
    factory = _factory(context, params, index)
    context.map_slices_with_actors(
        slices, factory, quarantine=partial(quarantined, index), **_resources(params)
    )
    context.commit(slices, schemas={"data": IMAGES, "rejects": REJECTS})


def quarantined(index: Dataset, slice_: Slice, detail: str) -> Output:
    """Return rows of the index as rejects, because fetching them ends the worker."""
    rows = read_slice(index, slice_, ["sample_id", "source", "url"]).to_pylist()
    rejects = [
        reject(row["sample_id"], row["source"], KILLED_WORKER, detail, row["url"]) for row in rows
    ]
    return stored_output([], rejects)


def retry_rejects(context: Context, params: Params, reasons: Sequence[str]) -> None:
    """Fetch the rows again that were rejected for one of ``reasons``."""
    index = context.input("index")
    slices = row_slices(index, params.slice_rows)
    retry(context, slices, _factory(context, params, index), reasons, **_resources(params))


def _factory(context: Context, params: Params, index: Dataset) -> "Callable[[], SliceFetcher]":
    _name_proxies(params)
    limiter = open_limiter(params.hosts.rules(), num_shards(params.num_actors))
    return partial(SliceFetcher.open, params, index, context.folder, limiter)


def _name_proxies(params: Params) -> None:
    """Log which proxies are used, and what cannot be checked behind them.

    Raises:
        StageError: the environment names a proxy that cannot be used.
    """
    try:
        proxies = Proxies.of_environment()
    except ValueError as error:
        raise StageError(str(error)) from None
    if not proxies.by_scheme:
        return
    if params.engine == "img2dataset":
        logger.warning("the engine img2dataset uses no proxy; the environment names one")
        return
    names = sorted({f"{proxy.host}:{proxy.port}" for proxy in proxies.by_scheme.values()})
    logger.warning(
        "downloads go through the proxy %s: private addresses are refused as far as URLs spell "
        "them, but which hosts a name leads to is checked by the proxy alone (docs/reach.md)",
        ", ".join(names),
    )


def _resources(params: Params) -> dict[str, Any]:
    return {
        "num_actors": params.num_actors,
        "num_cpus": params.cpus_per_actor,
        "row_group_rows": _ROW_GROUP_ROWS,
    }


class SliceFetcher:
    """Fetches the images of slices, one slice at a time."""

    def __init__(self, params: Params, index: Dataset, folder: Store, engine: Engine) -> None:
        self.params, self.index, self.folder, self.engine = params, index, folder, engine

    @classmethod
    def open(
        cls, params: Params, index: Dataset, folder: Store, limiter: LimiterShards
    ) -> "SliceFetcher":
        """Return the fetcher of an actor.

        Args:
            params: of the stage.
            index: the rows to fetch.
            folder: the stage's.
            limiter: shards of the cluster's host limiter.
        """
        rules, images = params.rules(), params.store.rules()
        engine: Engine
        if params.contact is None:
            engine = refuse_urls
        elif params.engine == "img2dataset":
            engine = Img2datasetEngine(rules, images)
        else:
            make_limiter = partial(worker_limiter, limiter)
            engine = NativeEngine(rules, images, make_limiter, params.threads_per_actor)
        local = LocalImagesEngine(engine, images, Path(params.images_folder).expanduser())
        return cls(params, index, folder, local)

    def __call__(self, slice_: Slice) -> Output:
        """Fetch the images of one slice.

        Raises:
            OutageError: almost no request was answered.
        """
        rows = read_slice(self.index, slice_)
        rejected = rejected_rows(self.folder, slice_)
        if rejected is None:
            output = self.fetch(rows)
            self._check_outage(output)
            return output
        again, others = rejected
        output = self.fetch(rows.filter(pc.is_in(rows["sample_id"], again["sample_id"])))
        rejects = pa.concat_tables([output.tables["rejects"], others])
        return replace(
            output,
            num_rows_in=output.num_rows_in + others.num_rows,
            tables={**output.tables, "rejects": rejects},
        )

    def fetch(self, rows: pa.Table) -> Output:
        """Fetch the images of some rows of the index."""
        images, rejects = [], []
        outcomes = self.engine(rows["url"].to_pylist())
        for row, outcome in zip(rows.to_pylist(), outcomes, strict=True):
            name, source, url = row["sample_id"], row["source"], row["url"]
            try:
                if not isinstance(outcome, StoredImage):
                    raise outcome
                images.append(image_row(name, source, outcome, row["captions"], index_row=row))
            except (FetchError, ImageError) as error:
                rejects.append(reject(name, source, error.reason, error.detail, url))
        counters = {"original_bytes": sum(image["original_bytes"] or 0 for image in images)}
        return replace(stored_output(images, rejects), counters=counters)

    def _check_outage(self, output: Output) -> None:
        reasons, num_rows = output.tables["rejects"]["reason"].to_pylist(), output.num_rows_in
        unreached = sum(reason in UNREACHABLE for reason in reasons)
        limit = self.params.max_unreachable_fraction * num_rows
        if num_rows >= _MIN_ROWS_OF_AN_OUTAGE and unreached > limit:
            raise OutageError(
                f"{unreached} of {num_rows} images got no answer: is the network down? Where the "
                "list itself is dead, raise download.max_unreachable_fraction"
            )
