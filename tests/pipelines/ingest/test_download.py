"""From outcomes to tables: images, rejects, changed images, outages, retries."""

import json
import uuid

import numpy as np
import pyarrow as pa
import pytest

from dataprep.fetch import FetchError
from dataprep.images import ImageRules, encode_jpeg, store_image
from dataprep.schemas import INDEX
from orchestration.errors import StageError
from orchestration.slice_commit import commit_slice
from orchestration.slices import Slice, range_slices
from orchestration.storage.store import Store
from pipelines.ingest.download import OutageError, Params, SliceFetcher, _name_proxies
from pipelines.ingest.index import index_slice
from pipelines.ingest.sources.cc12m import Cc12m, write_hash_table
from tests.committing import commit_tables

JPEG = encode_jpeg(np.full((80, 80, 3), 99, np.uint8), 90)
STORED = store_image(JPEG, ImageRules(32, 90, 8, 10**6))


class Engine:
    """Gives each URL the outcome named by its last path segment."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.known = {"ok": STORED}

    def __call__(self, urls):
        self.asked += urls
        words = [url.rpartition("/")[2] for url in urls]
        return [self.known.get(word, FetchError(word, "why")) for word in words]


def fetcher(tmp_path, words: list[str], digests=None, **params) -> SliceFetcher:
    rows = [
        {
            "sample_id": f"s/{i}",
            "source": "s",
            "url": f"http://a.org/{i}/{word}",
            "captions": [f"caption {i}"],
            "sha256": (digests or {}).get(i),
        }
        for i, word in enumerate(words)
    ]
    tables = [pa.Table.from_pylist(rows, INDEX)]
    folder = tmp_path / uuid.uuid4().hex
    index = commit_tables(Store(folder / "index"), tables, row_group_rows=8)
    store = Store(folder / "download")
    return SliceFetcher(Params(contact="tests", **params), index, store, Engine())


def test_every_row_is_an_image_or_a_reject_with_its_url(tmp_path):
    words = ["ok", "http_404", "ok", "undecodable", "timeout"]
    (slice_,) = range_slices(len(words), 10)
    output = fetcher(tmp_path, words)(slice_)
    images, rejects = (output.tables[name].to_pylist() for name in ("data", "rejects"))
    assert [row["sample_id"] for row in images] == ["s/0", "s/2"]
    assert [(row["reason"], row["url"]) for row in rejects] == [
        ("http_404", "http://a.org/1/http_404"),
        ("undecodable", "http://a.org/3/undecodable"),
        ("timeout", "http://a.org/4/timeout"),
    ]
    assert output.num_rows_in == 5
    assert output.counters == {"original_bytes": 2 * len(JPEG)}


def test_an_image_with_another_digest_is_marked_and_kept(tmp_path):
    digests = {0: STORED.sha256, 1: "0" * 64}
    mine = fetcher(tmp_path, ["ok"] * 3, digests)
    output = mine.fetch(mine.index.read())
    assert output.tables["data"]["hash_matches"].to_pylist() == [True, False, None]


def test_an_outage_fails_the_slice_but_dead_links_do_not(tmp_path):
    (slice_,) = range_slices(40, 40)
    with pytest.raises(OutageError, match="39 of 40"):
        fetcher(tmp_path, ["timeout", "dns", "connection"] * 13 + ["ok"])(slice_)
    fetcher(tmp_path, ["timeout"] * 40, max_unreachable_fraction=1)(slice_)
    fetcher(tmp_path, ["http_403"] * 40)(slice_)
    fetcher(tmp_path, ["timeout"] * 5)(range_slices(5, 5)[0])


@pytest.mark.parametrize(
    ("variables", "engine", "said"),
    [
        ({"HTTP_PROXY": "http://me:secret@proxy.test:3128"}, "native", "proxy proxy.test:3128"),
        ({"https_proxy": "proxy.test:80"}, "native", "proxy proxy.test:80"),
        ({"ALL_PROXY": "http://proxy.test:1"}, "img2dataset", "uses no proxy"),
        ({}, "native", ""),
    ],
)
def test_proxies_are_named_without_their_secrets(monkeypatch, caplog, variables, engine, said):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    _name_proxies(Params(contact="tests", engine=engine))
    assert said in caplog.text and bool(said) == bool(caplog.text)
    assert "secret" not in caplog.text


@pytest.mark.parametrize("proxy", ["socks5://me:secret@proxy.test:1080", "http://", "ftp://p"])
def test_a_proxy_that_cannot_be_used_stops_the_download(monkeypatch, proxy):
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(StageError, match="not an HTTP proxy") as error:
        _name_proxies(Params(contact="tests"))
    assert "secret" not in str(error.value)


def test_an_engine_that_reads_no_robots_txt_cannot_be_asked_to_obey_it():
    with pytest.raises(ValueError, match="reads no robots"):
        Params(contact="tests", engine="img2dataset", obey_robots_txt=True)


@pytest.mark.parametrize("reason", ["dns", "connection", "proxy"])
def test_an_outage_seen_while_reading_robots_txt_fails_the_slice(tmp_path, reason):
    (slice_,) = range_slices(40, 40)
    with pytest.raises(OutageError):
        fetcher(tmp_path, [reason] * 40, obey_robots_txt=True)(slice_)


def test_a_retried_slice_fetches_only_rows_with_the_given_reasons(tmp_path):
    words = ["ok", "http_404", "timeout", "http_503", "timeout"]
    mine = fetcher(tmp_path, words)
    (slice_,) = range_slices(len(words), 10)
    part = commit_slice(mine.folder, slice_, mine(slice_), 8)
    mine.engine.asked.clear()
    mine.engine.known["timeout"] = STORED
    path = part.tables["rejects"].path
    again = Slice(
        "000000-r1", {**slice_.payload, "rejects": path, "reasons": ["timeout", "http_503"]}
    )
    output = mine(again)
    assert mine.engine.asked == [f"http://a.org/{i}/{words[i]}" for i in (2, 3, 4)]
    assert output.tables["data"]["sample_id"].to_pylist() == ["s/2", "s/4"]
    assert sorted(output.tables["rejects"]["reason"].to_pylist()) == ["http_404", "http_503"]
    assert output.num_rows_in == 4


def test_an_index_of_cc12m_has_the_digests_of_its_hash_list(tmp_path):
    (tmp_path / "list.tsv").write_text("http://a.org/1\tone\nhttp://a.org/2\ttwo\n")
    (tmp_path / "hashes.tsv").write_text(f"http://a.org/2\t{STORED.sha256}\tmd5\n")
    params = Cc12m(
        format="cc12m", list=str(tmp_path / "list.tsv"), hashes=str(tmp_path / "hashes.tsv")
    )
    folder = Store(tmp_path / "index")
    write_hash_table(tmp_path / "hashes.tsv", folder)
    counts = json.loads(folder.read("hashes/counts.json"))
    assert counts == {"hash_lines": 1, "bad_hash_lines": 0}
    (slice_,) = params.slices()
    (output,) = index_slice(params, "cc12m", folder, slice_)
    rows = output.tables["data"]
    assert rows["sha256"].to_pylist() == [None, STORED.sha256]
    assert rows.schema.equals(INDEX)
