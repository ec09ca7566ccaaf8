"""The fetcher against the miniature web's server: each misbehavior gets its reason."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dataprep.addresses import AddressRules
from dataprep.fetch import Fetcher, FetchError, FetchRules
from dataprep.host_limiter import HostLimiter, HostRules
from dataprep.miniweb.corpora import MISBEHAVIORS
from dataprep.miniweb.server import serving

IMAGE_REASONS = {"not_an_image", "undecodable", "too_small"}
"Reasons that come from the bytes, so the fetch itself succeeds."


@pytest.fixture(scope="module")
def port(web: Path):
    with serving(web) as port:
        yield port


def fetch(urls: list[str], port: int, hosts: HostRules | None = None, **rules) -> list:
    settings = {
        "max_attempts": 2,
        "read_timeout_s": 0.5,
        "total_timeout_s": 2,
        "first_wait_s": 0.01,
    }
    addresses = AddressRules(rules.pop("private", False), {"*.test": f"127.0.0.1:{port}"})
    settings |= {"addresses": addresses, **rules}

    async def run() -> list:
        limiter = HostLimiter(hosts or HostRules(max_requests_per_second=1e6))
        fetcher = Fetcher(FetchRules(user_agent="tests", **settings), limiter)
        with ThreadPoolExecutor(1) as threads:
            outcomes = await fetcher.fetch_all(urls, bytes, threads)
        await fetcher.close()
        return outcomes

    return asyncio.run(run())


def reason(outcome) -> str:
    return outcome.reason if isinstance(outcome, FetchError) else "ok"


def image_url(web: Path, behavior: str) -> str:
    names = (web / "cc3m.tsv").read_text().split()
    name = next(n.rsplit("/", 1)[1] for n in names if "/ok/" in n)
    return f"http://a.test/{behavior}/{name}"


@pytest.mark.parametrize("behavior", MISBEHAVIORS)
def test_each_misbehavior_has_its_reason(web, port, behavior):
    url = image_url(web, behavior)
    if behavior == "dns":
        url = "http://gone.invalid/x.jpg"
    expected = MISBEHAVIORS[behavior]
    (outcome,) = fetch([url], port)
    assert reason(outcome) == ("ok" if expected in IMAGE_REASONS else expected)


@pytest.mark.parametrize("behavior", ["ok", "redirect", "flaky", "busy-once"])
def test_an_image_after_a_delay_is_complete(web, port, behavior):
    url = image_url(web, behavior)
    (body,) = fetch([url], port)
    assert body == (web / "images" / url.rsplit("/", 1)[1]).read_bytes()


def test_a_flaky_server_fails_with_one_attempt(web, port):
    url = image_url(web, "flaky").replace("a.test", "b.test").replace(".jpg", ".jpg?2")
    with serving(web) as fresh:
        assert reason(fetch([url], fresh, max_attempts=1)[0]) == "http_503"


def test_a_body_over_the_limit_is_cut_off(web, port):
    assert reason(fetch([image_url(web, "ok")], port, max_bytes=100)[0]) == "too_large"


def test_private_addresses_are_refused_unless_allowed(web, port):
    url = f"http://127.0.0.1:{port}/ok/x.jpg"
    assert reason(fetch([url, "http://localhost/x.jpg"], port)[0]) == "private_address"
    assert reason(fetch(["http://localhost/x.jpg"], port)[0]) == "private_address"
    assert reason(fetch([url], port, private=True)[0]) == "http_404"


def test_results_keep_the_order_of_the_urls(web, port):
    urls = [image_url(web, b) for b in ("missing", "ok", "gone", "ok")] * 10
    assert [reason(o) for o in fetch(urls, port)] == ["http_404", "ok", "http_410", "ok"] * 10
