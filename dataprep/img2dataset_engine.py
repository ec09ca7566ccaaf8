"""img2dataset's downloader and resizer as a fetch engine; its messages are mapped to our reasons.

img2dataset has no limits per host, no circuit breaker and no Retry-After. It follows redirects
without checking them, ignores EXIF orientation and Content-Encoding, and cannot tell HTML from a
damaged image (both are ``undecodable``). The URL opener that this module installs adds the address
rules, the total timeout and the size limit.

The library is imported at the first call: its import takes seconds, and few recipes choose it.
"""

import http.client
import os
import re
import socket
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dataprep.addresses import PrivateAddress
from dataprep.fetch_rules import FetchError, FetchRules
from dataprep.image_hashes import look_of
from dataprep.images import (
    TOO_LARGE,
    TOO_SMALL,
    UNDECODABLE,
    UNENCODABLE,
    ImageError,
    ImageRules,
    StoredImage,
    decode_stored,
)
from dataprep.robots import AGENT, OPT_OUT

_CHUNK_BYTES: Final = 1 << 16
OTHER: Final = "img2dataset"
"Reason for a message that matches no pattern; the message becomes the detail."
_REASONS: Final = (
    (r"infinite loop", "redirects"),
    (r"HTTP Error (\d+)", r"http_\1"),
    (r"PrivateAddress", "private_address"),
    (r"X-Robots-Tag", "opt_out"),
    (r"body over", "too_large"),
    (r"timed out", "timeout"),
    (r"Name or service not known|No address associated|name resolution|does not exist", "dns"),
    (r"CERTIFICATE|SSL", "tls"),
    (r"IncompleteRead", "truncated"),
    (r"reset by peer|closed connection|refused|unreachable|RemoteDisconnected", "connection"),
    (r"image too small", TOO_SMALL),
    (r"image area too large", TOO_LARGE),
    (r"unknown url type|no host given", "bad_url"),
    (r"decod|imdecode|cannot identify", UNDECODABLE),
)
"Patterns of its messages and the reasons they mean; the first match counts."


def fetch_with_img2dataset(
    urls: Sequence[str], rules: FetchRules, images: ImageRules
) -> Iterator[StoredImage | FetchError]:
    """Yield the stored image or the failure of each URL, in the order of ``urls``."""
    rows = {row["number"]: row for row in run_downloader(urls, rules, images)}
    for number in range(len(urls)):
        yield _outcome(rows.get(number))


def run_downloader(
    urls: Sequence[str], rules: FetchRules, images: ImageRules
) -> list[dict[str, Any]]:
    """Return the rows that the library writes, in the order of completion."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import sends a request
    from img2dataset.downloader import Downloader
    from img2dataset.resizer import Resizer
    from img2dataset.writer import ParquetSampleWriter

    urllib.request.install_opener(_opener(rules))
    resizer = Resizer(
        image_size=images.short_side,
        resize_mode="keep_ratio",
        resize_only_if_bigger=True,
        encode_quality=images.jpeg_quality,
        min_image_size=images.min_side,
        max_image_area=images.max_pixels,
    )
    with tempfile.TemporaryDirectory() as folder:
        shard = Path(folder) / "urls.arrow"
        table = pa.table({"url": list(urls), "number": np.arange(len(urls))})
        with pa.OSFile(str(shard), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        download = Downloader(
            sample_writer_class=ParquetSampleWriter,
            resizer=resizer,
            thread_count=rules.max_connections,
            save_caption=False,
            extract_exif=False,
            output_folder=folder,
            column_list=["url", "number"],
            timeout=rules.read_timeout_s,
            number_sample_per_shard=max(len(urls), 2),
            oom_shard_count=1,
            compute_hash="sha256",
            verify_hash_type=None,
            encode_format="jpg",
            retries=rules.max_attempts - 1,
            user_agent_token=AGENT,
            disallowed_header_directives=sorted(OPT_OUT),
        )
        download.download_shard((0, str(shard)))
        return list(pq.read_table(f"{folder}/0.parquet").to_pylist())


def reason_of(message: str) -> str:
    """Return the reason for one of the library's messages."""
    for pattern, reason in _REASONS:
        if found := re.search(pattern, message):
            return found.expand(reason)
    return OTHER


def _outcome(row: dict[str, Any] | None) -> StoredImage | FetchError:
    if row is None:
        return FetchError(OTHER, "img2dataset returned no row for this URL")
    if row["status"] != "success":
        return FetchError(reason_of(row["error_message"]), row["error_message"])
    try:
        look = look_of(decode_stored(row["jpg"] or b""))
    except ImageError as error:
        return FetchError(UNENCODABLE, f"img2dataset's result: {error.detail}")
    return StoredImage(
        jpeg=row["jpg"],
        width=row["width"],
        height=row["height"],
        original_width=row["original_width"],
        original_height=row["original_height"],
        original_bytes=None,
        sha256=row["sha256"],
        **look._asdict(),
    )


def _opener(fetch_rules: FetchRules) -> urllib.request.OpenerDirector:
    """Return a URL opener that keeps the address rules, the total timeout and the size limit."""
    rules = fetch_rules.addresses

    def connect(address: tuple[str, int], timeout: Any = None, *_: Any) -> socket.socket:
        target = rules.target(address[0])
        if target is not None:
            return socket.create_connection(target, timeout)
        if address[0].endswith(".invalid"):
            raise OSError(f"{address[0]} does not exist")
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
        addresses = [str(entry[4][0]) for entry in found]
        allowed = [each for each in addresses if rules.allows(each)]
        if not allowed:
            raise OSError(f"{PrivateAddress.__name__}: {address[0]} is {addresses[0]}")
        return socket.create_connection((allowed[0], address[1]), timeout)

    class Plain(http.client.HTTPConnection):
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **more)
            self._create_connection = connect

    class Tls(http.client.HTTPSConnection):
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **more)
            self._create_connection = connect

    class PlainHandler(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> Any:
            return _bounded(self.do_open(Plain, req), fetch_rules)

    class TlsHandler(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> Any:
            return _bounded(self.do_open(Tls, req), fetch_rules)

    return urllib.request.build_opener(
        urllib.request.ProxyHandler({}), PlainHandler(), TlsHandler()
    )


def _bounded(response: Any, rules: FetchRules) -> Any:
    """Replace a response's ``read`` by one with a total timeout and a size limit."""
    deadline = time.monotonic() + rules.total_timeout_s

    def read(_: int | None = None) -> bytes:
        chunks, size = [], 0
        while chunk := response.read1(_CHUNK_BYTES):
            chunks.append(chunk)
            size += len(chunk)
            if size > rules.max_bytes:
                raise ValueError(f"body over {rules.max_bytes} bytes")
            if time.monotonic() > deadline:
                raise TimeoutError("timed out: total timeout")
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)
        return b"".join(chunks)

    response.read = read
    return response
