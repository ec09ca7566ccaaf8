"""Answers that no HTTP library would send: what is harmless is taken, the rest is one reject each.

No such answer is tried again, and none counts against its host.
"""

import gzip
import zlib

import pytest

from dataprep.content_encoding import decoded
from dataprep.fetch_rules import FetchError
from dataprep.host_limiter import HostRules
from dataprep.response_handler import end_of_head
from dataprep.schemas import reject
from tests.dataprep.raw_server import IMAGE, RawServer, fetch, http, reason, redirect

LONG = "x" * 8191
N = f"Content-Length: {len(IMAGE)}"
CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody", 25),
        (b"HTTP/1.1 200 OK\nA: b\n\nbody", 22),
        (b"HTTP/1.1 200 OK\nA: b\n\nbody\r\n\r\n", 22),
        (b"HTTP/1.1 200 OK\r\nA: b\n\r\nbody\r\n\r\n", 24),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n\nbody\r\n\r\n", 24),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n", 0),
        (b"", 0),
    ],
)
def test_a_head_ends_at_its_first_empty_line(data, end):
    assert end_of_head(data) == end


def zipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def head(*lines: str, body: bytes = IMAGE, end: str = "\r\n") -> bytes:
    return end.join([*lines, "", ""]).encode("latin-1") + body


@pytest.mark.parametrize(
    "answer",
    [
        http(IMAGE, f"X-Long: {LONG}"),
        http(IMAGE, f"Set-Cookie: a={'b' * 200_000}"),
        http(IMAGE, *(f"X-{i}: {i}" for i in range(500))),
        http(IMAGE, f"Content-Length: {len(IMAGE)}"),
        http(IMAGE, f"content-length:{len(IMAGE)}", f"CONTENT-LENGTH:  {len(IMAGE)} "),
        head("HTTP/1.1 200 OK", f"Content-Length: {len(IMAGE)}, {len(IMAGE)}"),
        head("HTTP/1.1 200 OK", N, N, end="\n"),
        head("HTTP/1.1 200", N),
        head("HTTP/1.0 200 OK"),
        head("HTTP/1.1 200 OK", "X-Odd: \xff\xfe\x80", N),
        head("HTTP/1.1 200 Tr\xe8s bien", N),
        head("HTTP/1.1 103 Early Hints", "Link: </x>", "", "HTTP/1.1 200 OK", N, N),
        head("HTTP/1.1 200 OK", CHUNKED, body=b"104;x=y\r\n" + IMAGE + b"\r\n0\r\n\r\n"),
    ],
    ids=lambda answer: repr(answer[:60]),
)
def test_harmless_oddities_of_a_head_are_taken(answer):
    assert fetch(["http://a.test/x"], RawServer({"/x": answer})) == [IMAGE]


@pytest.mark.parametrize(
    "answer",
    [
        head("HTTP/1.1 200 OK", "no colon in this line", N),
        head("HTTP/1.1 200 OK", "Content-Length: 5", N),
        head("HTTP/1.1 200 OK", "Content-Length: five"),
        head("HTTP/1.1 200 OK", "Content-Length: -1"),
        head("HTTP/1.1 200 OK", "Content-Length: 99999999999999999999999999"),
        head("HTTP/1.1 200 OK", "X: a\x00b", N),
        head("HTTP/1.1 OK", N),
        head("HTTP/9.9.9 200 OK", N),
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"<html>not HTTP at all</html>\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x50",
        http(IMAGE, f"X-Long: {'x' * (300 << 10)}"),
        http(IMAGE, *(f"X-{i}: {LONG}" for i in range(50))),
        head("HTTP/1.1 200 OK", CHUNKED, body=b"zz\r\n" + IMAGE),
        head("HTTP/1.1 200 OK", CHUNKED, body=b"3\r\nabcdefg\r\n0\r\n\r\n"),
        head("HTTP/1.1 200 OK", CHUNKED, body=b"3\r\nabc\r\n0\r\n" + b"A: b\r\n" * 200_000),
    ],
    ids=lambda answer: repr(answer[:60]),
)
def test_an_answer_that_is_not_http_is_one_final_reject_and_not_the_host_s_fault(answer):
    bad = [f"http://a.test/bad{i}" for i in range(30)]
    good = [f"http://a.test/good{i}" for i in range(10)]
    server = RawServer({f"/bad{i}": answer for i in range(30)})
    outcomes = fetch(
        [*bad, *good],
        server,
        hosts=HostRules(1, 1e6, max_consecutive_failures=3),
        max_attempts=3,
    )
    assert [reason(outcome) for outcome in outcomes] == ["bad_response"] * 30 + ["ok"] * 10
    assert len(server.heads) == 40


def test_the_detail_of_a_reject_is_one_line():
    (error,) = fetch(["http://a.test/x"], RawServer({"/x": b"SSH-2.0-OpenSSH_9.6\r\n"}))
    row = reject("s/1", "s", error.reason, error.detail)
    assert "\n" in error.detail and row["detail"].startswith("http://a.test/x: Bad status line: ")
    assert row["detail"].isprintable()


@pytest.mark.parametrize(
    ("labels", "body"),
    [
        (["gzip"], IMAGE),
        (["gzip"], zipped(IMAGE)),
        (["x-gzip"], zipped(IMAGE[:100]) + zipped(IMAGE[100:]) + b"\0\0"),
        (["deflate"], zlib.compress(IMAGE)),
        (["deflate"], zlib.compress(IMAGE)[2:-4]),
        (["deflate"], IMAGE),
        (["br"], IMAGE),
        (["zstd"], IMAGE),
        (["br"], zipped(IMAGE)),
        (["aws-chunked"], IMAGE),
        (["utf-8"], IMAGE),
        (["identity"], IMAGE),
        (["gzip, gzip"], zipped(zipped(IMAGE))),
        (["gzip", "gzip"], zipped(IMAGE)),
        ([""], IMAGE),
    ],
)
def test_the_bytes_decide_over_the_content_encoding(labels, body):
    answer = http(body, *(f"Content-Encoding: {label}" for label in labels))
    assert fetch(["http://a.test/x"], RawServer({"/x": answer})) == [IMAGE]


@pytest.mark.parametrize(
    ("label", "body", "expected", "requests"),
    [
        ("br", b"\x0b\x02\x80hello\x03", "content_encoding", 1),
        ("zstd", b"(\xb5/\xfd hello", "content_encoding", 1),
        ("compress", b"\x1f\x9d\x90hello", "content_encoding", 1),
        (", ".join(["gzip"] * 9), b"hello", "content_encoding", 1),
        ("gzip", zipped(IMAGE)[:10] + b"\xff" * 40, "content_encoding", 1),
        ("gzip", zipped(IMAGE)[:-20], "truncated", 3),
        ("gzip", zipped(bytes(10_000_000)), "too_large", 1),
        ("deflate", zlib.compress(bytes(10_000_000)), "too_large", 1),
        ("gzip, gzip", zipped(zipped(bytes(10_000_000))), "too_large", 1),
    ],
)
def test_a_body_that_cannot_be_decoded_has_its_reason(label, body, expected, requests):
    server = RawServer({"/x": http(body, f"Content-Encoding: {label}")})
    outcomes = fetch(["http://a.test/x"], server, max_attempts=3, max_bytes=1_000_000)
    assert reason(outcomes[0]) == expected and len(server.heads) == requests


def test_a_decoded_body_may_be_exactly_as_large_as_the_limit():
    assert len(decoded(zipped(bytes(1000)), "gzip", 1000)) == 1000
    with pytest.raises(FetchError, match="too_large"):
        decoded(zipped(bytes(1001)), "gzip", 1000)


def test_a_cookie_lives_as_long_as_the_chain_of_one_row():
    async def wall(writer):
        seen = server.heads[-1]
        writer.write(http() if b"ok=1" in seen else redirect("/x", "Set-Cookie: ok=1; Path=/"))

    server = RawServer({"/x": wall})
    outcomes = fetch(["http://a.test/x"], server)
    outcomes += fetch(["http://a.test/x", "http://b.test/x"], server)
    assert outcomes == [IMAGE] * 3
    assert sum(b"ok=1" in each for each in server.heads) == 3 and len(server.heads) == 6


@pytest.mark.parametrize(
    ("cookie", "target", "sent"),
    [
        ("a=1", "http://a.test/y", True),
        ('a="q%22; "; HttpOnly', "http://a.test/y", True),
        ("a=1", "http://b.test/y", False),
        ("a=1; Domain=a.test", "http://sub.a.test/y", True),
        ("a=1; Domain=b.test", "http://b.test/y", False),
        ("a=1; Path=/other", "http://a.test/y", False),
        ("a=1; Secure", "http://a.test/y", False),
        ("a=1; Max-Age=0", "http://a.test/y", False),
    ],
)
def test_a_cookie_goes_only_where_rfc_6265_sends_it(cookie, target, sent):
    server = RawServer({"/x": redirect(target, f"Set-Cookie: {cookie}")})
    assert fetch(["http://a.test/x"], server) == [IMAGE]
    assert (b"\r\nCookie: a=" in server.heads[1]) == sent


def test_cookies_do_not_reach_other_rows_of_the_same_host():
    server = RawServer({"/x": redirect("/y", "Set-Cookie: a=1; Path=/")})
    fetch(["http://a.test/x", "http://a.test/z"], server, max_connections=1)
    (last,) = [each for each in server.heads if b"/z" in each]
    assert b"Cookie" not in last
