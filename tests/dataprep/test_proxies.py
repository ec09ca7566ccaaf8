"""Proxies of the environment: honored, except for what they cannot be asked to do."""

import pytest
from yarl import URL

from dataprep.proxies import Proxies
from tests.dataprep.raw_server import IMAGE, RawServer, fetch, http, reason

PROXY = {"http": "http://127.0.0.1:{public}"}


@pytest.mark.parametrize("host", ["only.the.proxy.knows", "other.example", "8.8.8.8"])
def test_hosts_that_only_the_proxy_knows_are_fetched_through_it(host):
    proxy = RawServer()
    assert fetch([f"http://{host}/x%27.jpg"], proxy, proxies=PROXY) == [IMAGE]
    assert proxy.targets() == [f"http://{host}/x%27.jpg"]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "10.0.0.1", "0x7f.1", "localhost", "[::1]", "①②⑦.0.0.1", "[fec0::1]"]
)
def test_no_private_address_is_asked_of_a_proxy(host):
    proxy = RawServer()
    assert reason(fetch([f"http://{host}/x"], proxy, proxies=PROXY)[0]) == "private_address"
    assert proxy.heads == []


def test_the_proxy_itself_is_not_a_host_of_the_list():
    server = RawServer()
    urls = ["http://127.0.0.1:{public}/x"]
    outcomes = fetch(urls, server, proxies={"https": "http://127.0.0.1:{public}"})
    assert reason(outcomes[0]) == "private_address" and server.heads == []


def test_a_redirect_behind_a_proxy_is_checked_too():
    target = http(b"", "Location: http://169.254.169.254/meta", status="302 Found")
    proxy = RawServer({"http://other.example/x": target})
    outcomes = fetch(["http://other.example/x"], proxy, proxies=PROXY)
    assert reason(outcomes[0]) == "private_address" and len(proxy.heads) == 1


@pytest.mark.parametrize(
    ("url", "proxies"),
    [
        ("http://other.example/x", {"http": "http://127.0.0.1:9"}),
        ("https://other.example/x", {"https": "http://127.0.0.1:9"}),
        ("https://other.example/x", {"https": "http://127.0.0.1:{public}"}),
    ],
)
def test_a_proxy_that_fails_or_refuses_is_named_and_tried_again(url, proxies):
    server = RawServer({"other.example:443": http(b"", status="407 Who are you")})
    outcomes = fetch([url], server, proxies=proxies)
    assert reason(outcomes[0]) == "proxy" and outcomes[0].retried


@pytest.mark.parametrize(
    ("variables", "url", "proxy"),
    [
        ({"HTTP_PROXY": "http://p:3128"}, "http://a.org/x", "http://p:3128"),
        ({"http_proxy": "p:3128"}, "http://a.org/x", "http://p:3128"),
        ({"HTTPS_PROXY": "http://u:pw@p:3128"}, "https://a.org/x", "http://u:pw@p:3128"),
        ({"ALL_PROXY": "http://p:1"}, "https://a.org/x", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:3128"}, "http://a.org/x", None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "a.org"}, "http://www.a.org/x", None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "*"}, "http://a.org/x", None),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "b.org"}, "http://a.org/x", "http://p:1"),
        ({"HTTP_PROXY": ""}, "http://a.org/x", None),
        ({}, "http://a.org/x", None),
    ],
)
def test_the_environment_is_read_as_other_programs_read_it(monkeypatch, variables, url, proxy):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Proxies.of_environment().of(URL(url)) == (proxy and URL(proxy))


@pytest.mark.parametrize(
    "proxy", ["socks5://user:secret@p:1080", "http://", "ftp://p", "http://[x"]
)
def test_a_proxy_of_another_kind_is_refused_without_its_secrets(proxy):
    with pytest.raises(ValueError, match="HTTP proxy") as refusal:
        Proxies({"http": proxy})
    assert "secret" not in str(refusal.value)
