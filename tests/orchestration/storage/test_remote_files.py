"""Files given by URI: their versions, and copies that are complete or absent."""

from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Annotated

import pytest

from orchestration.errors import RecipeError, StageError
from orchestration.fingerprint import semantic
from orchestration.params import EXTERNAL_FILE, OR_URI, StageParams
from orchestration.storage import remote_files
from orchestration.storage.files import StorageParams
from orchestration.storage.remote_files import (
    check,
    copy_files,
    version_of,
    versions_of,
    with_local_files,
)
from orchestration.storage.s3_files import client
from orchestration.storage.store import Store
from tests.one_file import OneFile, serving
from tests.s3 import BUCKET

BODY = b"a line\n" * 50_000


class Lists(StageParams):
    list: Annotated[str, EXTERNAL_FILE, OR_URI]
    hashes: Annotated[str | None, EXTERNAL_FILE, OR_URI] = None


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OneFile]:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    version_of.cache_clear()
    with serving(BODY) as made:
        yield made


def test_a_copy_equals_the_remote_file_and_is_made_once(server, store):
    params = Lists(list=server.uri)
    copy_files(versions_of(params), store)
    asked = server.num_requests
    copy_files(versions_of(params), store)
    assert server.num_requests == asked
    local = with_local_files(params, store).list
    assert local.endswith("my list.tsv")
    with Path(local).open("rb") as file:
        assert file.read() == BODY
    remote_files.remove_copies(store)
    assert list(store.walk()) == []


def test_parameters_without_a_uri_are_unchanged(tmp_path):
    params = Lists(list="a.tsv")
    copy_files(versions_of(params), Store(tmp_path))
    assert with_local_files(params, Store(tmp_path)) is params


def test_the_version_is_semantic_and_the_address_is_not(server):
    elsewhere = server.uri.replace("lists", "other")
    before = semantic(Lists(list=server.uri))
    assert semantic(Lists(list=elsewhere)) == before
    version_of.cache_clear()
    server.etag = '"two"'
    assert semantic(Lists(list=server.uri)) != before


def test_a_transient_error_is_retried(server, store):
    server.statuses = [503, 200, 200, 429]  # first the request for the version, then for the body
    server.cut = [len(BODY), 1000]
    params = Lists(list=server.uri)
    copy_files(versions_of(params), store)
    with Path(with_local_files(params, store).list).open("rb") as file:
        assert file.read() == BODY


def test_a_file_that_cannot_be_read_is_named(server, store):
    server.statuses = [404]
    with pytest.raises(RecipeError, match=r"my%20list\.tsv.*404"):
        check(server.uri)
    planned = versions_of(Lists(list=server.uri))
    server.cut = [1000] * 9
    with pytest.raises(StageError, match=r"my%20list\.tsv.*(ended|broke off) after "):
        copy_files(planned, store)
    assert list(store.walk()) == []


MONDAY, TUESDAY = "Mon, 06 Jan 2025 10:00:00 GMT", "Tue, 07 Jan 2025 10:00:00 GMT"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (('"a"', MONDAY), ('"b"', MONDAY)),
        (('W/"a"', MONDAY), ("", MONDAY)),
        (('W/"a"', ""), ('"a"', "")),
        (('"a"', ""), (' W/"a"', "")),
    ],
)
def test_servers_behind_one_address_may_differ_in_their_etags(server, store, first, second):
    server.etag, server.last_modified = first
    params = Lists(list=server.uri)
    before, planned = semantic(params), versions_of(params)
    server.etag, server.last_modified = second
    version_of.cache_clear()
    assert semantic(params) == before
    copy_files(planned, store)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (('"a"', ""), ('"b"', "")),
        (('"a"', MONDAY), ('"a"', TUESDAY)),
        (("", MONDAY), ("", TUESDAY)),
        (('W/"a"', ""), ('W/"b"', "")),
    ],
)
def test_another_version_is_seen_and_the_message_names_a_way_out(server, store, first, second):
    server.etag, server.last_modified = first
    params = Lists(list=server.uri)
    before, planned = semantic(params), versions_of(params)
    server.etag, server.last_modified = second
    version_of.cache_clear()
    assert semantic(params) != before
    with pytest.raises(StageError, match="download the file and give its path"):
        copy_files(planned, store)


@pytest.mark.parametrize("date", [MONDAY, TUESDAY])
def test_the_time_of_the_answer_is_no_version(date):
    headers = Message()
    headers["ETag"], headers["Date"], headers["Last-Modified"] = 'W/"a"', date, date
    assert remote_files._tag(headers) == '"a"'


def test_a_file_that_changes_during_a_workflow_stops_it(server, store):
    planned = versions_of(Lists(list=server.uri))
    server.etag = '"two"'
    version_of.cache_clear()  # a worker has an empty cache
    with pytest.raises(StageError, match="changed since the workflow was planned"):
        copy_files(planned, store)
    assert list(store.walk()) == []


def test_a_server_without_a_version_or_with_another_scheme_is_refused(server):
    server.etag = ""
    with pytest.raises(RecipeError, match="neither ETag nor Last-Modified"):
        check(server.uri)
    for uri in ("ftp://example.org/x", "file:///etc/passwd"):
        with pytest.raises(RecipeError, match="unsupported scheme; give a file by path"):
            check(uri)


def test_a_file_on_s3_is_copied_and_its_change_is_noticed(s3_endpoint, store, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    version_of.cache_clear()
    uri = f"s3://{BUCKET}/lists/own.tsv"
    objects = client(StorageParams(endpoint_url=s3_endpoint, region="us-east-1"))
    objects.put_object(Bucket=BUCKET, Key="lists/own.tsv", Body=BODY)
    params = Lists(list=uri)
    copy_files(versions_of(params), store)
    with Path(with_local_files(params, store).list).open("rb") as file:
        assert file.read() == BODY
    before = semantic(params)
    version_of.cache_clear()
    objects.put_object(Bucket=BUCKET, Key="lists/own.tsv", Body=BODY.replace(b"a", b"b"))
    assert semantic(params) != before
    with pytest.raises(RecipeError, match=r"gone\.tsv"):
        check(f"s3://{BUCKET}/lists/gone.tsv")


@pytest.mark.parametrize("key", ["a#1.tsv", "a?x=1.tsv", "a%2Fb.tsv", "a b é+c.tsv", "a//b.tsv"])
def test_the_key_of_an_object_is_taken_as_it_stands(s3_endpoint, tmp_path, monkeypatch, key):
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    objects = client(StorageParams(endpoint_url=s3_endpoint))
    for other in ("a", "a%2Fb.tsv", "a/b.tsv"):
        objects.put_object(Bucket=BUCKET, Key=f"odd/{other}", Body=b"another object")
    objects.put_object(Bucket=BUCKET, Key=f"odd/{key}", Body=BODY)
    version_of.cache_clear()
    params, folder = Lists(list=f"s3://{BUCKET}/odd/{key}"), Store(tmp_path / "stage")
    copy_files(versions_of(params), folder)
    with Path(with_local_files(params, folder).list).open("rb") as file:
        assert file.read() == BODY


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("/a b.tsv", "/a%20b.tsv"),
        ("/é.tsv", "/%C3%A9.tsv"),
        ("/a%20b%2Fc.tsv?sig=x%2By/z", "/a%20b%2Fc.tsv?sig=x%2By/z"),
        ("/a|b.tsv", "/a%7Cb.tsv"),
    ],
)
def test_an_address_is_sent_with_nothing_encoded_twice(server, monkeypatch, written, sent):
    asked = []
    monkeypatch.setattr(
        server.http.RequestHandlerClass, "parse_request",
        lambda self, parse=server.http.RequestHandlerClass.parse_request: (
            parse(self) and (asked.append(self.path) or True)
        ),
    )  # fmt: skip
    check(server.uri.partition("/lists")[0] + written)
    assert asked == [sent]


def test_a_host_that_is_no_name_is_refused_in_one_line(server):
    with pytest.raises(RecipeError, match="not a host name"):
        check(f"http://{'é' * 80}.example.org/x")
