"""Download: index rows → stored images.

Out: ``data`` (see ``dataprep.schemas.IMAGES``) and ``rejects``; every row of the index ends in
exactly one of the two. Drops: what the server did (``http_404``, ``timeout``, ``dns``, …, see
``dataprep.fetch``) or what the image is (``undecodable``, ``too_small``, …, see
``dataprep.images``). Duplicates and captions are judged in ``curate``.
A slice of which almost nothing could be reached fails, to be tried again: that is an outage here,
not thousands of dead links.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Final, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from dataprep.addresses import AddressRules
from dataprep.fetch import UNREACHABLE, FetchRules
from dataprep.host_limiter import HostRules
from dataprep.images import StoredImage
from dataprep.robots import AGENT
from dataprep.schemas import reject
from orchestration import Context, Dataset, Output, Slice
from orchestration.params import OPERATIONAL, StageParams
from orchestration.retries import rejected_rows, retry
from orchestration.slices import read_slice, row_slices
from orchestration.storage.store import Store
from pipelines.ingest.cluster_host_limiter import open_limiter
from pipelines.ingest.fetch_engines import Engine, Img2datasetEngine, NativeEngine, cluster_gate
from pipelines.ingest.store_images import StoreParams, image_row, stored_output

_MIN_ROWS_OF_AN_OUTAGE: Final = 32
_ROW_GROUP_ROWS: Final = 256


class OutageError(RuntimeError):
    """Almost no row of a slice could be reached."""


class HostParams(StageParams):
    """How a host is treated, over the whole cluster."""

    max_concurrent_requests: int = Field(default=8, ge=1)
    "Largest number of open requests to one host, over the whole cluster."
    max_requests_per_second: float = Field(default=50, gt=0)
    "Largest rate of requests to one host, over the whole cluster."
    max_consecutive_failures: int = Field(default=20, ge=1)
    "Largest number of consecutive unanswered requests before the host is paused."
    pause_s: float = Field(default=60, gt=0)
    "First pause of a host before it is probed, and the longest Retry-After that is waited for."

    def rules(self) -> HostRules:
        """Return the same for ``dataprep``."""
        return HostRules(**self.model_dump())


class Params(StageParams):
    """How images are fetched and kept."""

    contact: str
    "An address in the User-Agent, so that a site can reach whoever runs this."
    engine: Literal["native", "img2dataset"] = "native"
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 10.0
    total_timeout_s: float = 30.0
    max_attempts: int = Field(default=3, ge=1)
    "Largest number of attempts per image."
    max_bytes: int = 50 << 20
    max_redirects: int = 5
    obey_robots_txt: bool = False
    max_unreachable_fraction: float = Field(default=0.95, gt=0, le=1)
    "Fraction of unanswered requests above which a slice fails as an outage; 1 disables the check."
    slice_rows: int = Field(default=2048, ge=1)
    "Index rows of a slice."
    store: StoreParams = StoreParams()
    hosts: Annotated[HostParams, OPERATIONAL] = HostParams()
    max_connections: Annotated[int, OPERATIONAL] = 64
    "Largest number of open connections of an actor."
    num_actors: Annotated[int, OPERATIONAL] = Field(default=2, ge=1)
    "Two for each core let one fetch while the other waits for its last images."
    cpus_per_actor: Annotated[float, OPERATIONAL] = Field(default=0.5, gt=0)
    threads_per_actor: Annotated[int, OPERATIONAL] = Field(default=2, ge=1)
    "That decode and encode."
    allow_private_addresses: Annotated[bool, OPERATIONAL] = False
    connect_to: Annotated[dict[str, str], OPERATIONAL] = Field(default_factory=dict)
    "ADDRESS:PORT by host pattern, in place of DNS."

    def rules(self) -> FetchRules:
        """Return the same for ``dataprep``."""
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


def run(context: Context, params: Params) -> None:
    """Fetch each slice of the index in an actor that keeps its connections."""
    index = context.input("index")
    slices = row_slices(index, params.slice_rows)
    factory = _factory(context, params, index)
    context.map_slices_with_actors(slices, factory, **_resources(params))
    context.commit(slices)


def retry_rejects(context: Context, params: Params, reasons: Sequence[str]) -> None:
    """Fetch rows again that were rejected for some reasons."""
    index = context.input("index")
    slices = row_slices(index, params.slice_rows)
    retry(context, slices, _factory(context, params, index), reasons, **_resources(params))


def _factory(context: Context, params: Params, index: Dataset) -> "Callable[[], SliceFetcher]":
    desk = open_limiter(params.hosts.rules())
    return partial(SliceFetcher.open, params, index, context.folder, desk)


def _resources(params: Params) -> dict[str, Any]:
    return {
        "num_actors": params.num_actors,
        "num_cpus": params.cpus_per_actor,
        "row_group_rows": _ROW_GROUP_ROWS,
    }


class SliceFetcher:
    """Fetches the images of slices."""

    def __init__(self, params: Params, index: Dataset, folder: Store, engine: Engine) -> None:
        self.params, self.index, self.folder, self.engine = params, index, folder, engine

    @classmethod
    def open(cls, params: Params, index: Dataset, folder: Store, desk: Any) -> "SliceFetcher":
        """Return one for an actor, whose requests go through the desk."""
        rules, images = params.rules(), params.store.rules()
        if params.engine == "img2dataset":
            return cls(params, index, folder, Img2datasetEngine(rules, images))
        gate = partial(cluster_gate, desk)
        engine = NativeEngine(rules, images, gate, params.threads_per_actor)
        return cls(params, index, folder, engine)

    def __call__(self, piece: Slice) -> Output:
        """Fetch the images of one slice.

        Raises:
            OutageError: almost nothing could be reached.
        """
        rows = read_slice(self.index, piece)
        rejected = rejected_rows(self.folder, piece)
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
            if isinstance(outcome, StoredImage):
                digest = row["sha256"]
                images.append(
                    image_row(
                        name, source, outcome, row["captions"], url=url, expected_sha256=digest
                    )
                )
            else:
                rejects.append(reject(name, source, outcome.reason, outcome.detail, url))
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
