"""URLs reach the server as the list or the redirect has them, and no odd byte reaches a table."""

import pickle

import pytest

from dataprep.addresses import PrivateAddress
from dataprep.fetch_rules import FetchError
from dataprep.host_limiter import HostUnavailable
from dataprep.urls import sendable
from tests.dataprep.raw_server import RawServer, fetch, reason, redirect


@pytest.mark.parametrize(
    ("listed", "sent"),
    [
        ("/a%27b.jpg?sig=x%2Fy%7E%2B%3D&e=%41", None),
        ("/%e4%b8%ad.jpg?X-Amz-Signature=a%2fb&X-Amz-Date=1", None),
        ("/a'b(1)!;v=1,2$.jpg?x=[1]&y='z'&z=a+b", None),
        ("/a/../b/./c.jpg", None),
        ("//double//slash.jpg?u=http://b.test/x?y", None),
        ("/100%.jpg?q=%zz", "/100%25.jpg?q=%25zz"),
        ("/a b|c\\d.jpg", "/a%20b%7Cc%5Cd.jpg"),
        ("/bücher/中.jpg?q=é", "/b%C3%BCcher/%E4%B8%AD.jpg?q=%C3%A9"),
        ("/x.jpg#part", "/x.jpg"),
        ("?only=query", "/?only=query"),
        ("", "/"),
    ],
)
def test_a_url_is_sent_as_the_list_has_it(listed, sent):
    server = RawServer()
    assert reason(fetch([f"http://a.test{listed}"], server)[0]) == "ok"
    assert server.targets() == [sent or listed]


@pytest.mark.parametrize(
    ("location", "sent"),
    [
        (b"/bl\xe5.jpg", "/bl%E5.jpg"),
        (b"/\xff\xfe x.jpg?q=\x80", "/%FF%FE%20x.jpg?q=%80"),
        ("/blå.jpg".encode(), "/bl%C3%A5.jpg"),
        (b"/a%27b?s=x%2Fy%7E", "/a%27b?s=x%2Fy%7E"),
        (b"//b.test/c%41.jpg", "/c%41.jpg"),
        (b"http://b.test?x=%7E", "/?x=%7E"),
        (b"?page=2", "/first?page=2"),
        (rb"\\b.test\c.jpg", "/c.jpg"),
        (rb"http:\\b.test\c\d.jpg", "/c/d.jpg"),
        (rb"\c.jpg?q=a\b", "/c.jpg?q=a%5Cb"),
    ],
)
def test_a_redirect_is_followed_byte_by_byte(location, sent):
    server = RawServer({"/first": redirect(location)})
    assert reason(fetch(["http://a.test/first"], server)[0]) == "ok"
    assert server.targets() == ["/first", sent]


@pytest.mark.parametrize(
    "location",
    [
        b"http://b\xe5.test/x",
        b"http://\xff\xff/x",
        b"http://[::1/x",
        rb"\\b%2f.test\x",
        b"http://a b.test/",
        b"http://b.test:99999/",
        b"ftp://b.test/x.jpg",
        b"file:///etc/passwd",
        b"data:image/png;base64,AAAA",
        b"http://b\xe2\x84\x80c.test/",
    ],
)
def test_a_redirect_to_no_http_url_is_a_reject_that_a_table_takes(location):
    urls = ["http://a.test/first", "http://a.test/good"]
    bad, good = fetch(urls, RawServer({"/first": redirect(location)}))
    assert isinstance(bad, FetchError) and bad.reason == "bad_url"
    assert bad.detail.encode() and isinstance(good, bytes)


def test_no_detail_holds_a_lone_surrogate_or_grows_without_bound():
    error = FetchError("bad_url", "b\udce5" * 10_000)
    assert len(error.detail.encode()) < 10_000


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://bücher.test/x", "xn--bcher-kva.test"),
        ("HTTP://A.Test:80/", "a.test"),
        ("http://①②⑦.⓪.⓪.①/", "127.0.0.1"),
        ("http://127。0。0。1/", "127.0.0.1"),
        ("http://%31%32%37.0.0.1/", "127.0.0.1"),
        ("http://good.test\\@127.0.0.1/", "good.test"),
        ("http://good.test@127.0.0.1/", "127.0.0.1"),
        (" http://a.\ttest/x\n", "a.test"),
        ("http://[::FFFF:127.0.0.1]/", "::ffff:7f00:1"),
    ],
)
def test_the_host_that_is_checked_is_the_host_that_a_browser_would_ask(url, host):
    assert sendable(url).raw_host == host


@pytest.mark.parametrize(
    "url", ["", "a.test/x", "ftp://a.test/", "http:a.test", "http://", "http://a%2fb.test/", "x:y"]
)
def test_what_is_not_an_http_url_is_bad(url):
    with pytest.raises(FetchError, match="bad_url"):
        sendable(url)


@pytest.mark.parametrize(
    "error",
    [
        FetchError("http_429", "busy", 7.0),
        FetchError("bad_url"),
        HostUnavailable("a.org"),
        PrivateAddress("a.org is private"),
    ],
)
def test_failures_cross_processes_with_what_they_say(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error) and str(copy) == str(error) and vars(copy) == vars(error)
