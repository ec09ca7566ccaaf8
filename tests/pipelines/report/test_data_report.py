"""The data report: its numbers against a plain count, its page, and hostile text on it."""

import base64
import json
import random
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from types import SimpleNamespace
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pytest

from dataprep.images import decode_stored, encode_jpeg
from dataprep.schemas import DOCUMENTS, IMAGES, INDEX, KEPT, REJECTS, reject, rejects_table
from orchestration import Dataset, Output
from orchestration.reporting.usage import Usage, add_usage
from orchestration.storage.store import Store
from pipelines.curate.large_drops import FIELDS, large_drops
from pipelines.curate.rules import REASONS as CURATION
from pipelines.ingest.published_counts import published_numbers
from pipelines.report import column_counts
from pipelines.report.column_counts import bars, count_hosts, find_rows, hosts_of, spread
from pipelines.report.data_report import HTML_FILE, JSON_FILE, ReportParams, make_report, sources_of
from pipelines.report.held_out_counts import Splits
from pipelines.report.pair_counts import PairCount
from pipelines.report.source_counts import SourceStages, count
from pipelines.tokens.held_out import caption_words, is_held_out
from tests.committing import commit_outputs

HOSTILE = "<script>alert('x')</script>"
REASONS = ("http_404", "http_403", "dns", "too_small")
DROPS = ("duplicate", "near_duplicate")
CAPTIONS = {"captions_merged": 17, "captions/caption_too_short": 1900}
HOSTS = ("a.example", "B.example", "c.example:8080", "user@d.example", "<script>.example")
SHORTEST = 32
SPLITS = Splits(seed=1, images=0.2, pairs=0.1, texts=0.5)


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch):
    """Make several ranges of few rows."""
    monkeypatch.setattr(column_counts, "_ROWS", 23)
    monkeypatch.setattr(column_counts, "_MERGED", 3)


def image(source: str, number: int, draw: random.Random, **more: object) -> dict[str, object]:
    width, height = draw.randint(SHORTEST, 900), draw.randint(SHORTEST, 900)
    pixels = np.full((40, 60, 3), number % 256, np.uint8)
    return {
        "sample_id": f"{source}/{number:09d}",
        "source": source,
        "url": f"http://{draw.choice(HOSTS)}/{number}.jpg?u=http://not.example/",
        "jpeg": encode_jpeg(pixels, 95),
        "width": 60,
        "height": 40,
        "original_width": width,
        "original_height": height,
        "original_bytes": draw.choice([None, draw.randint(300, 90_000)]),
        "sha256": f"{number:x}",
        "hash_matches": draw.choice([None, True, False]),
        "captions": [f"{HOSTILE} {number}"],
        "label": "",
        **more,
    }


def in_parts(tables: dict[str, pa.Table], size: int) -> list[Output]:
    """Cut tables into the outputs of slices, each table into the same number."""
    number = max(1, -(-max(table.num_rows for table in tables.values()) // size))
    outputs = []
    for i in range(number):
        cut = {name: table.slice(i * size, size) for name, table in tables.items()}
        outputs.append(Output(sum(t.num_rows for t in cut.values()), cut))
    return outputs


class Web:
    """Committed stages of three sources and of curation, with their rows as plain dictionaries."""

    def __init__(self, folder: Store, num_rows: int = 120) -> None:
        draw = random.Random(3)
        self.folder = folder
        self.images = [image("pairs", i, draw) for i in range(num_rows)]
        self.rejects = [
            reject(
                f"pairs/x{i}", "pairs", draw.choice(REASONS), HOSTILE,
                draw.choice([None, f"https://{draw.choice(HOSTS)}/x{i}"]),
            )
            for i in range(num_rows // 2)
        ]  # fmt: skip
        self.bad_lines = [reject(f"pairs/b{i}", "pairs", "bad_url", "?") for i in range(3)]
        tried = len(self.images) + len(self.rejects)
        index = pa.Table.from_pylist([{"sample_id": str(i)} for i in range(tried)], INDEX)
        self.index = self.commit(
            "index/pairs", {"data": index, "rejects": rejects_table(self.bad_lines)}, form="cc3m"
        )
        self.download = self.commit("download/pairs", self.tables(self.images, self.rejects))
        self.labeled = [
            image("labeled", i, draw, url=None, hash_matches=None, captions=[], label="n01")
            for i in range(num_rows // 3)
        ]
        self.archive = self.commit(
            "import/labeled", self.tables(self.labeled, []), form="imagenet21k"
        )
        texts = pa.Table.from_pylist([{"doc_id": "1"}, {"doc_id": "2"}], DOCUMENTS)
        short = rejects_table([reject("3", "texts", "too_short", "")])
        self.documents = self.commit("documents/texts", {"data": texts, "rejects": short})
        self.dropped = [
            reject(row["sample_id"], row["source"], draw.choice(DROPS), "")
            for row in (*self.images, *self.labeled)
            if draw.random() < 0.3
        ]
        dropped = {row["sample_id"] for row in self.dropped}
        self.kept = [
            [
                {
                    "sample_id": row["sample_id"],
                    "dataset": number,
                    "row": i,
                    "captions": [f"{number} {i}"] * (i % 3 + 1) * (number == 0),
                }
                for i, row in enumerate(rows)
                if row["sample_id"] not in dropped
            ]
            for number, rows in enumerate((self.images, self.labeled))
        ]
        pairs, images = (pa.Table.from_pylist(rows, KEPT) for rows in self.kept)
        tables = {"pairs": pairs, "images": images, "rejects": rejects_table(self.dropped)}
        first, *others = in_parts(tables, 17)
        self.curated = commit_outputs(
            self.folder.sub("curate"),
            [replace(first, counters=CAPTIONS), *others],
            row_group_rows=7,
            numbers={"images_kept_by_detail": 1234, "images_without_structure": 56},
        )

    def tables(self, images, rejects) -> dict[str, pa.Table]:
        return {
            "data": pa.Table.from_pylist(images, IMAGES),
            "rejects": pa.Table.from_pylist(rejects, REJECTS),
        }

    def commit(self, stage: str, tables: dict[str, pa.Table], form: str = "") -> Dataset:
        folder = self.folder.sub(stage)
        add_usage(folder, Usage(seconds=4.0))
        params = {"format": form} if form else {}
        return commit_outputs(folder, in_parts(tables, 17), row_group_rows=7, params=params)

    @property
    def sources(self) -> list[SourceStages]:
        return [
            SourceStages(
                "pairs", {"index/pairs": self.index, "download/pairs": self.download}, "images"
            ),
            SourceStages("labeled", {"import/labeled": self.archive}, "images"),
            SourceStages("texts", {"documents/texts": self.documents}, "documents"),
        ]


@pytest.fixture
def web(tmp_path) -> Web:
    return Web(Store(tmp_path))


class Page(HTMLParser):
    """The elements of a page, as an HTML parser sees them."""

    VOID = ("meta", "img", "rect")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.titles: list[str] = []
        self.sources: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        if tag not in self.VOID:
            self._open.append(tag)
        if tag == "img":
            self.titles.append(dict(attrs)["title"])
            self.sources.append(dict(attrs)["src"])
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self._open and self._open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def made(web: Web, params: ReportParams) -> tuple[Page, dict, dict[str, float]]:
    folder = web.folder.sub("data_report")
    numbers = make_report(folder, params, web.sources, web.curated)
    page = Page(folder.read(HTML_FILE).decode())
    return page, json.loads(folder.read(JSON_FILE)), numbers


def test_every_row_of_a_source_has_one_outcome(web):
    pairs, labeled, texts = count(web.sources, web.curated, 5, SPLITS).sources
    expected = Counter(row["reason"] for row in (*web.rejects, *web.bad_lines))
    expected["stored"] = len(web.images)
    assert {o.reason: o.rows for o in pairs.outcomes} == expected
    for source in (pairs, labeled, texts):
        assert sum(outcome.rows for outcome in source.outcomes) == source.rows
        assert sum(outcome.fraction for outcome in source.outcomes) == pytest.approx(1)
    tried = len(web.images) + len(web.rejects)
    assert (pairs.rows, pairs.tried, pairs.stored) == (tried + 3, tried, len(web.images))
    assert pairs.success_rate == len(web.images) / tried
    assert [rate.when for rate in pairs.rates] == ["2019", "2021", "2024-01", "2025-07"]
    assert (texts.rows, texts.stored, texts.images, texts.hosts) == (3, 2, None, None)
    assert [stage.rows_per_second for stage in pairs.stages] == [(tried + 3) / 4, tried / 4]


def test_hosts_are_ranked_by_their_failures(web):
    tried, failed = Counter(), {}
    for row in (*web.images, *web.rejects):
        if row["url"]:
            host = urlsplit(row["url"]).hostname
            tried[host] += 1
            if "reason" in row:
                failed.setdefault(host, Counter())[row["reason"]] += 1
    report = count_hosts(web.download, 3)
    assert report.num_hosts == len(tried) == len(HOSTS)
    order = sorted(failed, key=lambda host: (-failed[host].total(), host))
    assert [host.host for host in report.worst] == order[:3]
    for host in report.worst:
        reasons = failed[host.host]
        assert (host.tried, host.failed) == (tried[host.host], reasons.total())
        assert host.reason_rows == reasons[host.reason] == max(reasons.values())
    assert count_hosts(web.archive, 3).num_hosts == 0


def test_the_host_of_a_url_is_extracted_in_lower_case():
    urls = {
        "http://A.b/x": "a.b",
        "https://u:p@host.example:81/x@y": "host.example",
        "http://host.example?q=http://other/": "host.example",
        "http://[::1]:80/x": "[::1]",
        "no address": None,
        None: None,
    }
    assert hosts_of(pa.array(list(urls))).to_pylist() == list(urls.values())


def test_sizes_bytes_and_digests_agree_with_the_rows(web):
    seen = count(web.sources, web.curated, 5, SPLITS).sources[0].images
    sides = [min(row["original_width"], row["original_height"]) for row in web.images]
    sizes = [row["original_bytes"] for row in web.images if row["original_bytes"]]
    for drawn, values in (
        (seen.original_sides, sides), (seen.original_sizes, sizes), (seen.stored_sides, [40] * 120)
    ):  # fmt: skip
        assert sum(bar.rows for bar in drawn) == len(values)
        for bar in drawn:
            assert bar.rows == sum(bar.low <= value <= bar.high for value in values)
        assert all(one.high + 1 == other.low for one, other in pairwise(drawn))
    assert seen.original_bytes == sum(sizes)
    matches = Counter(row["hash_matches"] for row in web.images)
    digests = seen.digests
    assert (digests.same, digests.other, digests.unknown) == tuple(
        matches[key] for key in (True, False, None)
    )


def test_drops_of_curation_are_counted_by_source_and_reason(web):
    report = count(web.sources, web.curated, 5, SPLITS)
    for curated, rows in zip(report.curation, (web.images, web.labeled), strict=True):
        mine = [row for row in web.dropped if row["source"] == curated.name]
        assert curated.drops == Counter(row["reason"] for row in mine)
        assert (curated.rows, curated.kept) == (len(rows), len(rows) - len(mine))
    assert set(report.reasons) == set(DROPS)


def test_every_caption_of_a_kept_image_is_a_pair(web):
    kept = [row["captions"] for row in web.kept[0]]
    report = count(web.sources, web.curated, 5, SPLITS)
    assert report.pairs == (PairCount("pairs", len(kept), sum(map(len, kept))),)
    page, _, numbers = made(web, ReportParams())
    assert numbers["pairs/pairs"] == sum(map(len, kept))
    assert numbers["images_with_captions/pairs"] == len(kept)
    words = f"21M pairs over 15M images; here are {sum(map(len, kept))} pairs over {len(kept)} ima"
    assert words in page.text


def test_held_out_rows_are_those_that_the_token_stages_will_hold_out(web):
    counts = {c.source: c for c in count(web.sources, web.curated, 5, SPLITS).held_out}
    captions = [caption_words(row["captions"][0]) for row in web.kept[0]]
    digests = [web.labeled[row["row"]]["sha256"] for row in web.kept[1]]
    for name, kind, groups, kept, fraction in (
        ("pairs", "caption", captions, web.kept[0], 0.1),
        ("labeled", "image", digests, web.kept[1], 0.2),
    ):
        expected = sum(is_held_out(kind, group, fraction, 1) for group in groups)
        assert (counts[name].rows, counts[name].held_out) == (len(kept), expected)
    texts = sum(is_held_out("document", name, 0.5, 1) for name in "12")
    assert (counts["texts"].rows, counts["texts"].held_out) == (2, texts)
    whole = [replace(source, held_out=True) for source in web.sources]
    for entry in count(whole, web.curated, 5, SPLITS).held_out:
        assert entry.held_out == entry.rows > 0


def test_a_rule_that_drops_more_than_a_tenth_of_a_source_is_named_with_its_field(web):
    assert FIELDS.keys() == set(CURATION)
    drops = {"caption_length": 11, "aspect": 10, "near_duplicate": 40, "duplicate": 0}
    assert [drop.words for drop in large_drops("own", 100, drops)] == [
        "near_duplicate dropped 40.0% of own (40 images); see curate.max_hash_distance",
        "caption_length dropped 11.0% of own (11 images); "
        "see curate.min_caption_words, curate.max_caption_words",
    ]
    assert list(large_drops("empty", 0, {})) == []
    for curated in count(web.sources, web.curated, 5, SPLITS).curation:
        large = {reason for reason, n in curated.drops.items() if n > curated.rows / 10}
        assert {drop.reason for drop in curated.large_drops} == large != set()


def test_the_page_shows_every_count_and_its_images(web):
    page, numbers, logged = made(
        web, ReportParams(num_images=10, num_dropped=4, num_hosts=3, thumbnail_size=16)
    )
    for source in numbers["sources"]:
        for outcome in source["outcomes"]:
            cells = [outcome["reason"], f"{outcome['rows']:,}", f"{outcome['fraction']:.1%}", ""]
            assert cells in page.rows
    for host in numbers["sources"][0]["hosts"]["worst"]:
        assert [host["host"], str(host["tried"]), str(host["failed"])] in [r[:3] for r in page.rows]
    drops = [
        str(row["drops"].get(reason, 0))
        for row in numbers["curation"]
        for reason in numbers["reasons"]
    ]
    heading = next(row for row in page.rows if row[:3] == ["source", "images", "kept"])
    below = page.rows.index(heading) + 1
    assert drops == [cell for row in page.rows[below : below + 2] for cell in row[3:]]
    for entry in numbers["held_out"]:
        fraction = f"{entry['held_out'] / entry['rows']:.1%}"
        assert [entry["source"], str(entry["rows"]), str(entry["held_out"]), fraction] in page.rows
    for entry in numbers["curation"]:
        for drop in entry["large_drops"]:
            assert (
                f"{drop['reason']} dropped {drop['fraction']:.1%} of {entry['name']}" in page.text
            )
    merged = [row for row in page.rows if row[0].startswith("captions")]
    assert merged == [
        ["captions", "number"],
        ["captions/caption_too_short", "1,900"],
        ["captions_merged", "17"],
    ]
    assert "because the details differ: 1,234 images" in page.text
    assert "with images of the same hash alone: 56 images" in page.text
    assert "183 rows, published: 3,318,333 (train), 15,840" in page.text
    assert page.tags["img"] == 10 + 10 + 4 + 4
    assert page.titles[:2] == [f"pairs/{i:09d} · {HOSTILE} {i}" for i in (0, 13)]
    reason_of = {row["sample_id"]: row["reason"] for row in web.dropped}
    shown = [reason_of[title.split(" · ")[0]] for title in page.titles[20:]]
    assert shown == [numbers["reasons"][0]] * 4 + [numbers["reasons"][1]] * 4
    for address in page.sources:
        kind, _, data = address.partition(",")
        assert kind == "data:image/jpeg;base64"
        assert decode_stored(base64.b64decode(data)).shape == (16, 24, 3)
    assert logged["success_rate/pairs"] == numbers["sources"][0]["success_rate"]
    assert logged["stored/texts"] == 2
    known = [row["hash_matches"] for row in web.images if row["hash_matches"] is not None]
    assert logged["same_digest/pairs"] == sum(known) / len(known)


def test_untrusted_text_is_escaped(web):
    page, _, _ = made(web, ReportParams(num_images=3, thumbnail_size=16))
    html = web.folder.sub("data_report").read(HTML_FILE).decode()
    assert page.tags["script"] == 0 and "<script" not in html
    assert HOSTILE in page.titles[0] and "<script>.example" in page.text
    assert "default-src 'none'" in html and "http" not in html.replace("http_", "").replace(
        "http-equiv", ""
    )


def test_a_source_without_rows_is_reported(tmp_path):
    web = Web(Store(tmp_path), num_rows=0)
    page, numbers, _ = made(web, ReportParams())
    pairs, labeled, _ = numbers["sources"]
    assert (pairs["rows"], pairs["success_rate"], labeled["success_rate"]) == (3, None, None)
    assert labeled["images"]["original_sides"] == []
    assert page.tags["img"] == 0


@pytest.mark.parametrize("kept", [slice(0, 1), slice(1, 2), slice(2, 3), slice(0, 0)])
def test_a_report_needs_no_particular_kind_of_source(web, kept):
    folder = web.folder.sub("data_report")
    tables = {name: pa.Table.from_pylist([], KEPT) for name in ("pairs", "images")}
    nothing = web.commit("nothing", {**tables, "rejects": rejects_table(web.dropped)})
    make_report(folder, ReportParams(num_images=2), web.sources[kept], nothing)
    names = [source["name"] for source in json.loads(folder.read(JSON_FILE))["sources"]]
    assert names == [source.name for source in web.sources[kept]]
    Page(folder.read(HTML_FILE).decode())


def test_the_stages_of_a_source_are_grouped_by_its_name(web):
    inputs = {
        "lists": {"index/pairs": web.index},
        "images": {"download/pairs": web.download, "import/labeled": web.archive},
        "evaluation_sets": {"import/evaluation": web.archive},
        "documents": {"documents/texts": web.documents},
        "held_out": {"import/labeled": web.archive},
    }
    context = SimpleNamespace(
        stage=SimpleNamespace(inputs={role: tuple(stages) for role, stages in inputs.items()}),
        inputs=lambda role: list(inputs[role].values()),
    )
    evaluation = SourceStages("evaluation", {"import/evaluation": web.archive}, "evaluation_sets")
    sources = sources_of(context)
    pairs, labeled, texts = web.sources
    assert sources == [pairs, replace(labeled, held_out=True), evaluation, texts]
    report = count(sources, web.curated, 5, SPLITS)
    assert [source.name for source in report.sources] == ["pairs", "labeled", "evaluation", "texts"]
    assert [curated.name for curated in report.curation] == ["pairs", "labeled"]


def test_a_list_that_differs_from_the_published_one_is_logged(caplog, tmp_path):
    path = tmp_path / "captions.json"
    path.write_text("{}")
    with caplog.at_level("INFO"):
        assert published_numbers("index/a", "cc3m", rows=15_840) == {"published_rows": 15_840}
        assert published_numbers("import/b", "imagenet21k", synsets=21_800) == {
            "published_rows": 14_197_122
        }
        assert published_numbers("import/c", "coco", rows=4_999, file=str(path)) == {
            "published_rows": 5_000, "published_checksum": 0,
        }  # fmt: skip
        assert published_numbers("index/d", "csv", rows=9, file="not read") == {}
    lines = [(record.levelname, record.message) for record in caplog.records]
    assert lines[:2] == [
        ("INFO", "index/a: 15,840 rows, as published (validation)"),
        ("WARNING", "import/b: 21,800 synsets, published: 21,841 (fall11)"),
    ]
    assert len(lines) == 4 and "coco_karpathy_train.json" in lines[3][1]


def test_rows_are_found_by_their_ids_in_every_range(web):
    rows = [0, 22, 23, 64, 119]
    ids = [web.images[row]["sample_id"] for row in rows]
    assert find_rows(web.download, [*ids, "nowhere"]) == dict(zip(ids, rows, strict=True))
    assert find_rows(web.download, []) == {}


def test_row_numbers_are_spread_from_the_first_to_the_last():
    assert spread(0, 5) == [] and spread(3, 5) == [0, 1, 2] and spread(9, 1) == [0]
    assert spread(101, 3) == [0, 50, 100]
    assert [bar.rows for bar in bars(Counter({4: 1, 6: 2}))] == [1, 0, 2]
