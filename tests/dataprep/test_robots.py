"""X-Robots-Tag and robots.txt, the latter by the examples of RFC 9309 and of Google's parser."""

import gzip

import pytest

from dataprep.robots import AGENT, opted_out, parse_robots
from tests.dataprep.raw_server import RawServer, fetch, http, reason, redirect


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("noai", ["noai"]),
        ("NoImageAI", ["noimageai"]),
        ("none", ["none"]),
        ("noarchive, none", ["none"]),
        ("noai noimageai", ["noai", "noimageai"]),
        ("max-image-preview:large, noai", ["noai"]),
        ("max-snippet:-1, max-video-preview: 5, noindex", ["noindex"]),
        ("unavailable_after: 25 Jun 2030 15:00:00 PST, noai", ["noai"]),
        ("unavailable_after: Wednesday, 25-Jun-30 15:00:00 GMT, noimageindex", ["noimageindex"]),
        ("some-new-directive: 7, noai", ["noai"]),
        (f"{AGENT}: max-snippet: 5, noai", ["noai"]),
        (f"{AGENT.upper()}: noindex", ["noindex"]),
        ("*: noai", ["noai"]),
        (f"otherbot: nofollow, {AGENT}: none", ["none"]),
        ("noai, otherbot: noarchive", ["noai"]),
        ("otherbot: noai, noindex", []),
        ("otherbot: max-image-preview:large, noai", []),
        ("beit3: noai", []),
        (f"my{AGENT}: noai", []),
        ("max-image-preview: none", []),
        ("max-image-preview:none, nofollow", []),
        ("all, index, follow", []),
        ("noaiology", []),
        ("", []),
        (":,:: ,", []),
    ],
)
def test_an_opt_out_is_read_among_other_directives(header, found):
    assert opted_out([header]) == found


def test_each_header_line_begins_for_every_robot():
    assert opted_out(["otherbot: noindex", "noai"]) == ["noai"]


GROUP = f"User-agent: {AGENT}\n"


@pytest.mark.parametrize(
    ("rules", "path", "allowed"),
    [
        ("User-agent: *\nDisallow: /*.jpg$", "/a/b.jpg", False),
        ("User-agent: *\nDisallow: /*.jpg$", "/a/b.jpg?x", True),
        ("User-agent: *\nAllow: /\nDisallow: /private/", "/private/x", False),
        ("User-agent: *\nAllow: /\nDisallow: /private/", "/open/x", True),
        ("User-agent: *\nDisallow: /\nAllow: /p", "/page", True),
        ("User-agent: *\nDisallow: /folder\nAllow: /folder", "/folder/page", True),
        ("User-agent: *\nAllow: /page\nDisallow: /*.htm", "/page.htm", False),
        ("User-agent: *\nDisallow: /fish*", "/fishheads/x", False),
        ("User-agent: *\nDisallow: /fish/", "/fish", True),
        ("\ufeffUser-agent: *\nDisallow: /", "/x", False),
        ("\ufeffUser-agent: *\r\nDisallow: /\r\n", "/x", False),
        ("USER-AGENT: *\nDISALLOW: /", "/x", False),
        ("User-agent: *\n\n\nDisallow: /", "/x", False),
        ("User-agent: a\nUser-agent: *\nDisallow: /", "/x", False),
        ("# User-agent: *\nDisallow: /", "/x", True),
        ("User-agent: * # everybody\nDisallow: / # all", "/x", False),
        (f"{GROUP}Disallow: /\n\nUser-agent: *\nAllow: /", "/x", False),
        (f"User-agent: *\nDisallow: /\n\n{GROUP}Allow: /", "/x", True),
        (f"{GROUP}Disallow: /a\n\nUser-agent: x\nDisallow: /\n\n{GROUP}Disallow: /b", "/b", False),
        (f"User-agent: {AGENT.upper()}/2.0\nDisallow: /", "/x", False),
        ("User-agent: beit3\nDisallow: /", "/x", True),
        ("User-agent: pipeline\nDisallow: /", "/x", True),
        ("User-agent: e\nDisallow: /", "/x", True),
        (f"User-agent: {AGENT}-two\nDisallow: /", "/x", True),
        ("User-agent: beit3\nAllow: /\n\nUser-agent: *\nDisallow: /", "/x", False),
        ("User-agent: *\nDisallow: /caf%C3%A9", "/caf%c3%a9/x", False),
        ("User-agent: *\nDisallow: /café", "/caf%C3%A9/x", False),
        ("User-agent: *\nDisallow: /a%3Cd", "/a%3cd", False),
        ("User-agent: *\nCrawl-delay: 1\nUser-agent: a\nDisallow: /", "/x", False),
        ("User-agent: *\nContent-Signal: search=yes\nUser-agent: a\nDisallow: /", "/x", False),
        (
            "User-agent: *\n Request-rate: 1/5\n\nSitemap: /s\nUser agent: a\nDissallow: /",
            "/x",
            False,
        ),
        ("User-agent: a\nCrawl-delay: 1\nDisallow: /\nUser-agent: *\nDisallow: /b", "/x", True),
        ("User-agent: *\nDisallow:", "/x", True),
        ("<!doctype html><title>Not found</title>", "/x", True),
        ("\x00\x01\x02", "/x", True),
        ("", "/x", True),
    ],
)
def test_robots_txt_is_read_by_the_standard(rules, path, allowed):
    parsed = parse_robots(rules.encode())
    assert parsed.can_fetch(f"http://a.test{path}", AGENT) == allowed


FORBIDDEN = b"User-agent: *\nDisallow: /private/\n"
PRIVATE, OPEN = "http://a.test/private/1", "http://a.test/open/1"


async def in_pieces(writer):
    padded = b"# a long preface\n" * 20_000 + FORBIDDEN
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(padded))
    for start in range(0, len(padded), 4096):
        writer.write(padded[start : start + 4096])
        await writer.drain()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (http(FORBIDDEN), ["robots_txt", "ok"]),
        (http(b"\xef\xbb\xbf" + FORBIDDEN), ["robots_txt", "ok"]),
        (in_pieces, ["robots_txt", "ok"]),
        (http(gzip.compress(FORBIDDEN, mtime=0), "Content-Encoding: gzip"), ["robots_txt", "ok"]),
        (http(FORBIDDEN + b"#" * (600 << 10)), ["robots_txt", "ok"]),
        (redirect("http://b.test/rules"), ["robots_txt", "ok"]),
        (redirect("/hop1"), ["robots_txt", "ok"]),
        (redirect("/endless"), ["ok", "ok"]),
        (http(FORBIDDEN, status="404 Not Found"), ["ok", "ok"]),
        (http(FORBIDDEN, status="403 Forbidden"), ["ok", "ok"]),
        (http(b"", status="500 Oops"), ["http_500", "http_500"]),
        (http(b"", status="503 Busy"), ["http_503", "http_503"]),
        (b"not HTTP\r\n\r\n", ["bad_response", "bad_response"]),
        (b"", ["connection", "connection"]),
    ],
    ids=lambda value: repr(value[:70]) if isinstance(value, bytes) else None,
)
def test_a_robots_txt_is_found_and_obeyed(answer, expected):
    rules = http(FORBIDDEN)
    hops = {f"/hop{i}": redirect(f"/hop{i + 1}") for i in range(1, 4)} | {"/hop4": rules}
    server = RawServer(
        {"/robots.txt": answer, "/rules": rules, "/endless": redirect("/endless"), **hops}
    )
    outcomes = fetch([PRIVATE, OPEN], server, obey_robots_txt=True)
    assert [reason(outcome) for outcome in outcomes] == expected
    assert ("/private/1" in server.targets()) == (expected[0] == "ok")
    assert len(fetch([PRIVATE], RawServer({"/robots.txt": answer}))[0]) > 0


@pytest.mark.parametrize("path", ["/open/../private/1", "/%70rivate/1", "/open/%2e%2e/private/1"])
def test_no_spelling_of_a_forbidden_path_is_asked_for(path):
    server = RawServer({"/robots.txt": http(FORBIDDEN)})
    outcomes = fetch([f"http://a.test{path}"], server, obey_robots_txt=True)
    assert reason(outcomes[0]) == "robots_txt" and server.targets() == ["/robots.txt"]


def test_a_redirect_to_a_forbidden_path_is_not_followed():
    server = RawServer({"/robots.txt": http(FORBIDDEN), "/open/1": redirect("/private/1")})
    outcomes = fetch([OPEN], server, obey_robots_txt=True)
    assert reason(outcomes[0]) == "robots_txt" and "/private/1" not in server.targets()


@pytest.mark.parametrize(
    ("host", "expected"), [("gone.invalid", "dns"), ("also.gone.invalid", "dns")]
)
def test_a_site_that_cannot_be_reached_forbids_nothing(host, expected):
    outcomes = fetch([f"http://{host}/1"], RawServer(), obey_robots_txt=True)
    assert reason(outcomes[0]) == expected


def test_a_robots_txt_that_failed_once_is_read_again():
    tries = []

    async def flaky(writer):
        tries.append(1)
        writer.write(http(b"", status="503 Busy") if len(tries) == 1 else http(FORBIDDEN))

    server = RawServer({"/robots.txt": flaky})
    outcomes = fetch([PRIVATE, OPEN], server, obey_robots_txt=True, max_attempts=2)
    assert [reason(outcome) for outcome in outcomes] == ["robots_txt", "ok"] and len(tries) == 2
