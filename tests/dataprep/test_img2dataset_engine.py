"""img2dataset's engine gives the same outcomes as ours, except where it cannot tell them apart."""

import io
import socket
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dataprep.addresses import AddressRules
from dataprep.fetch import FetchError, FetchRules
from dataprep.host_limiter import HostLimiter, HostRules
from dataprep.images import ImageRules
from dataprep.img2dataset_engine import OTHER, fetch_with_img2dataset, reason_of
from dataprep.miniweb.corpora import TRUTH
from dataprep.miniweb.server import serving
from pipelines.ingest.fetch_engines import NativeEngine
from tests.dataprep.test_addresses import LOOPBACK

IMAGES = ImageRules(short_side=64, jpeg_quality=90, min_side=32, max_pixels=10_000_000)
CANNOT_TELL = {"not_an_image": "undecodable", "unsupported_format": "undecodable"}


def urls_and_truth(web: Path) -> list[tuple[str, dict]]:
    truth = {row["sample_id"]: row for row in pq.read_table(web / TRUTH).to_pylist()}
    lines = (web / "cc3m.tsv").read_text().splitlines()
    rows = [
        (line.split("\t")[1], truth[f"cc3m/{i:09d}"])
        for i, line in enumerate(lines, 1)
        if "\t" in line
    ]
    return [row for row in rows if "/placeholder/" not in row[0]]


def rules(port: int, max_attempts: int = 2) -> FetchRules:
    addresses = AddressRules(True, {"*.test": f"127.0.0.1:{port}"})
    return FetchRules(
        "tests", max_attempts=max_attempts, read_timeout_s=1, total_timeout_s=3, addresses=addresses
    )


@pytest.mark.parametrize("engine", ["native", "img2dataset"])
def test_both_engines_give_the_true_outcome_of_every_row(web, engine):
    rows = urls_and_truth(web)
    urls = [url for url, _ in rows]
    with serving(web) as port:
        if engine == "native":
            limiter = partial(
                HostLimiter, HostRules(max_concurrent_requests=50, max_requests_per_second=1e6)
            )
            native = NativeEngine(rules(port), IMAGES, limiter, num_threads=2)
            outcomes = native(urls)
            native.close()
        else:
            outcomes = list(fetch_with_img2dataset(urls, rules(port), IMAGES))
    for (_, truth), outcome in zip(rows, outcomes, strict=True):
        expected = truth["outcome"]
        if isinstance(outcome, FetchError):
            wanted = CANNOT_TELL.get(expected, expected) if engine == "img2dataset" else expected
            assert outcome.reason == wanted, outcome.detail
        else:
            assert expected == "ok"
            size = outcome.original_width, outcome.original_height
            assert size == (truth["width"], truth["height"])
            stored = Image.open(io.BytesIO(outcome.jpeg))
            assert min(stored.size) == 64 and stored.size == (outcome.width, outcome.height)


def test_both_engines_store_nearly_the_same_pixels(web):
    urls = [url for url, truth in urls_and_truth(web) if "/ok/" in url][:20]
    with serving(web) as port:
        native = NativeEngine(rules(port), IMAGES, partial(HostLimiter, HostRules()), 1)
        mine = native(urls)
        native.close()
        theirs = list(fetch_with_img2dataset(urls, rules(port), IMAGES))
    for ours, other in zip(mine, theirs, strict=True):
        assert (ours.sha256, ours.width, ours.height) == (other.sha256, other.width, other.height)
        a, b = (np.asarray(Image.open(io.BytesIO(o.jpeg)), np.float32) for o in (ours, other))
        assert np.abs(a - b).mean() < 9  # of 255; the two filters differ at the edges of patterns


def test_private_addresses_are_refused():
    urls = ["http://127.0.0.1:1/x.jpg", "http://localhost:1/x.jpg"]
    outcomes = list(fetch_with_img2dataset(urls, FetchRules("tests", max_attempts=1), IMAGES))
    assert [outcome.reason for outcome in outcomes] == ["private_address"] * 2


def test_no_spelling_of_this_machine_is_reached():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        port = server.getsockname()[1]
        urls = [f"http://{spelling}:{port}/x.jpg" for spelling in LOOPBACK]
        outcomes = list(fetch_with_img2dataset(urls, FetchRules("tests", max_attempts=1), IMAGES))
        assert all(isinstance(outcome, FetchError) for outcome in outcomes)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_importing_the_engine_does_not_import_the_library():
    code = "import sys, dataprep.img2dataset_engine; print('img2dataset' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


def test_an_unknown_message_has_a_reason_of_its_own():
    assert reason_of("the moon is full") == OTHER


def test_an_engine_accepts_no_urls():
    native = NativeEngine(FetchRules("tests"), IMAGES, partial(HostLimiter, HostRules()), 1)
    assert native([]) == []
    native.close()


def test_a_slow_or_large_body_is_cut_off(web):
    (url, _) = next(row for row in urls_and_truth(web) if "/ok/" in row[0])
    with serving(web) as port:
        small = replace(rules(port, max_attempts=1), max_bytes=100)
        (outcome,) = fetch_with_img2dataset([url], small, IMAGES)
        assert outcome.reason == "too_large"
        drip = url.replace("/ok/", "/drip/")
        (outcome,) = fetch_with_img2dataset([drip], rules(port, max_attempts=1), IMAGES)
        assert outcome.reason == "timeout"
