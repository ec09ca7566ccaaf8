"""Download: index rows → stored pictures.

Out: ``data`` (see ``dataprep.schemas.IMAGES``) and ``rejects``; every row of the index ends in
exactly one of the two. Drops: what the server did (``http_404``, ``timeout``, ``dns``, …, see
``dataprep.fetch``) or what the picture is (``undecodable``, ``too_small``, …, see
``dataprep.images``). Duplicates and captions are judged in ``curate``.
"""

import asyncio
from functools import partial
from typing import Annotated

import pyarrow as pa
from pydantic import Field

from dataprep.fetch import FetchError, FetchRules, fetch_all
from dataprep.images import ImageError, ImageRules, StoredImage, store_image
from dataprep.schemas import IMAGES, reject, rejects_table
from orchestration import Context, Dataset, Output, Slice
from orchestration.params import OPERATIONAL, StageParams
from orchestration.stage import read_slice, row_slices
from pipelines.storing import StoreParams, image_row


class Params(StageParams):
    """How pictures are fetched and kept."""

    contact: str
    "An address in the User-Agent, so that a site can reach whoever runs this."
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 10.0
    total_timeout_s: float = 30.0
    attempts: int = Field(default=3, ge=1)
    max_bytes: int = 50 << 20
    max_redirects: int = 5
    slice_rows: int = Field(default=2048, ge=1)
    "Index rows of a slice."
    store: StoreParams = StoreParams()
    connections: Annotated[int, OPERATIONAL] = 64
    "Open at once in a worker."
    connections_per_host: Annotated[int, OPERATIONAL] = 8
    allow_private_addresses: Annotated[bool, OPERATIONAL] = False
    connect_to: Annotated[dict[str, str], OPERATIONAL] = Field(default_factory=dict)
    "ADDRESS:PORT by host pattern, in place of DNS."

    def rules(self) -> FetchRules:
        """Return the same for ``dataprep``."""
        fields = self.model_dump(exclude={"contact", "slice_rows", "store"})
        return FetchRules(user_agent=f"beit3-pipeline/0.1 (+{self.contact})", **fields)


def run(context: Context, params: Params) -> None:
    """Fetch each slice of the index in one worker."""
    index = context.input("index")
    slices = row_slices(index, params.slice_rows)
    context.map_slices(slices, partial(fetch_slice, params, index), row_group_rows=256)
    context.commit(slices)


def fetch_slice(params: Params, index: Dataset, piece: Slice) -> Output:
    """Fetch the pictures of one slice."""
    rows = read_slice(index, piece).to_pylist()
    store = partial(_store_or_fail, params.store.rules())
    outcomes = asyncio.run(fetch_all([row["url"] for row in rows], params.rules(), store))
    images, rejects = [], []
    for row, outcome in zip(rows, outcomes, strict=True):
        if isinstance(outcome, StoredImage):
            images.append(
                image_row(row["sample_id"], row["source"], outcome, row["captions"], url=row["url"])
            )
        else:
            rejects.append(
                reject(row["sample_id"], row["source"], outcome.reason, outcome.detail, row["url"])
            )
    return Output(
        num_rows_in=len(rows),
        tables={
            "data": pa.Table.from_pylist(images, IMAGES),
            "rejects": rejects_table(rejects),
        },
        counters={"original_bytes": sum(image["original_bytes"] for image in images)},
    )


def _store_or_fail(rules: ImageRules, _: int, body: bytes) -> StoredImage | FetchError:
    try:
        return store_image(body, rules)
    except ImageError as error:
        return FetchError(error.reason, error.detail)
