"""Lists and corpora as people have them: compressed, in parts, with local images."""

import csv
import gzip
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter

from dataprep.images import ImageRules, encode_jpeg
from orchestration.errors import RecipeError
from orchestration.slices import outputs_of
from orchestration.storage.store import Store
from pipelines.ingest import documents, index
from pipelines.ingest.download import Params as DownloadParams
from pipelines.ingest.local_images import LocalImagesEngine
from pipelines.ingest.sources.registry import AnySource

UNUSED = Store("unused")
PAIRS = [(f"http://a.org/{i}.jpg", f"caption {i}") for i in range(9)]


def source(format_: str, location: Path, **fields):
    key = "list" if format_ in ("cc3m", "cc12m", "csv", "tsv", "jsonl_pairs", "parquet_pairs",
                                "sbu", "sbu_json") else "file"  # fmt: skip
    section = {"format": format_, key: str(location), **fields}
    return TypeAdapter(AnySource).validate_python(section)


class Recorder:
    """A context that processes slices at once and collects their tables."""

    def __init__(self) -> None:
        self.stage = SimpleNamespace(name="index/own")
        self.folder = UNUSED

    def local_files(self, params):
        return params

    def map_slices(self, slices, process, **_: object) -> None:
        outputs = []
        for slice_ in slices:
            outputs += outputs_of(process(slice_))
            assert len(slice_.id) == 6
        for output in outputs:
            assert output.num_rows_in == sum(table.num_rows for table in output.tables.values())
        self.rows, self.rejects = (
            [row for output in outputs for row in output.tables[name].to_pylist()]
            for name in ("data", "rejects")
        )

    def commit(self, slices, **_: object) -> None:
        pass


def run(params) -> Recorder:
    context = Recorder()
    stage = index if hasattr(params, "list") else documents
    stage.run(context, params, "own")
    return context


def plan(params) -> int | None:
    stage = index if hasattr(params, "list") else documents
    return stage.expects(params).rows


def text_of(format_: str, pairs) -> bytes:
    lines = {
        "cc3m": lambda url, caption: f"{caption}\t{url}",
        "cc12m": lambda url, caption: f"{url}\t{caption}",
        "tsv": lambda url, caption: f"{url}\t{caption}",
        "csv": lambda url, caption: f"{url},{caption}",
        "jsonl_pairs": lambda url, caption: json.dumps({"url": url, "caption": caption}),
        "jsonl": lambda url, caption: json.dumps({"text": f"{caption} of a long text"}),
    }[format_]
    header = {"tsv": ["url\tcaption"], "csv": ["url,caption"]}.get(format_, [])
    return "".join(f"{line}\n" for line in [*header, *(lines(*pair) for pair in pairs)]).encode()


SUFFIXES = {"cc3m": "tsv", "cc12m": "tsv", "tsv": "tsv", "csv": "csv", "jsonl_pairs": "jsonl",
            "jsonl": "json"}  # fmt: skip


@pytest.mark.parametrize("format_", SUFFIXES)
@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_of_parts_gives_the_rows_of_all(tmp_path, format_, packed):
    for i in range(3):
        data = text_of(format_, PAIRS[3 * i : 3 * i + 3])
        path = tmp_path / f"part-{i}.{SUFFIXES[format_]}{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(data) if packed else data)
    (tmp_path / "_SUCCESS").write_bytes(b"")
    (tmp_path / ".part-0.crc").write_bytes(b"x")
    params = source(format_, tmp_path, slice_lines=2)
    found = run(params)
    ids = [row["sample_id" if "url" in row else "doc_id"] for row in found.rows]
    assert len(set(ids)) == 9 and not found.rejects
    assert ids[0].startswith(f"own/part-0.{SUFFIXES[format_]}")
    if "url" in found.rows[0]:
        assert sorted((r["url"], *r["captions"]) for r in found.rows) == sorted(PAIRS)
    assert 9 <= plan(params) <= 12


@pytest.mark.parametrize("format_", SUFFIXES)
def test_a_compressed_list_is_read_and_planned(tmp_path, format_):
    path = tmp_path / f"list.{SUFFIXES[format_]}.gz"
    path.write_bytes(gzip.compress(text_of(format_, PAIRS)))
    params = source(format_, path, slice_lines=4)
    assert len(run(params).rows) == 9 and 9 <= plan(params) <= 10


@pytest.mark.parametrize("format_", [*SUFFIXES, "txt", "sbu"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_another_encoding_is_refused_at_plan(tmp_path, format_, encoding):
    path = tmp_path / "list"
    path.write_text("A long enough line of text.\n", encoding=encoding)
    fields = {"captions": str(path)} if format_ == "sbu" else {}
    for step in (plan, run):
        with pytest.raises(RecipeError, match=r"list: UTF-16.*expected UTF-8"):
            step(source(format_, path, **fields))


@pytest.mark.parametrize("format_", [*SUFFIXES, "txt", "parquet", "parquet_pairs"])
def test_a_list_with_nothing_to_read_is_refused_at_plan(tmp_path, format_):
    empty, folder = tmp_path / "empty", tmp_path / "folder"
    empty.write_bytes(b"")
    folder.mkdir()
    (folder / "README.pdf").write_bytes(b"x")
    words = {empty: "empty: empty", folder: r"no files \*.*holds README\.pdf",
             tmp_path / "gone": "gone: no such"}  # fmt: skip
    for path in (empty, folder):
        for step in (plan, run):
            with pytest.raises(RecipeError, match=words[path]):
                step(source(format_, path))


def test_parquet_in_parts_is_read_by_part(tmp_path):
    for i in range(3):
        rows = pa.table({"url": [url for url, _ in PAIRS[:4]], "caption": ["a", "b", "c", "d"],
                         "text": ["a text that is long enough"] * 4})  # fmt: skip
        pq.write_table(rows, tmp_path / f"{i}.parquet", row_group_size=2)
    for format_ in ("parquet_pairs", "parquet"):
        params = source(format_, tmp_path)
        assert plan(params) == 12 and len(run(params).rows) == 12


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (pa.int64(), "int64"),
        (pa.timestamp("s"), "timestamp"),
        (pa.struct([("a", pa.string())]), "struct<a: string>"),
    ],
)
@pytest.mark.parametrize("format_", ["parquet", "parquet_pairs"])
def test_a_column_of_another_type_is_refused_at_plan(tmp_path, format_, kind, words):
    name = "text" if format_ == "parquet" else "caption"
    rows = pa.table({"url": ["http://a.org/1"], name: pa.array([None], kind)})
    pq.write_table(rows, tmp_path / "a.parquet")
    for step in (plan, run):
        with pytest.raises(RecipeError, match=rf"a\.parquet: column {name} is of type {words}"):
            step(source(format_, tmp_path / "a.parquet"))


@pytest.mark.parametrize("format_", ["parquet", "parquet_pairs"])
def test_binary_columns_are_read(tmp_path, format_):
    name = "text" if format_ == "parquet" else "caption"
    binary = pa.array([b"a text that is long enough", b"\xff"])
    urls = pa.array([b"http://a.org/1"] * 2)
    pq.write_table(pa.table({"url": urls, name: binary}), tmp_path / "p")
    found = run(source(format_, tmp_path / "p"))
    assert (len(found.rows), [r["reason"] for r in found.rejects]) == (1, ["malformed_line"])


LOCAL = {
    "images/1.jpg": "file:images/1.jpg",
    "./images/a b#.jpg": "file:./images/a%20b%23.jpg",
    "file:images/1.jpg": "file:images/1.jpg",
    "file:///data/a%20b.jpg": "file:/data/a%20b.jpg",
    "file://localhost/data/1.jpg": "file:/data/1.jpg",
    "/data/1.jpg": "file:/data/1.jpg",
    "C:odd.jpg": "file:C%3Aodd.jpg",
    "Hünde.jpg": "file:H%C3%BCnde.jpg",
    r"images\1.jpg": "file:images%5C1.jpg",
}


@pytest.mark.parametrize(("written", "url"), LOCAL.items())
@pytest.mark.parametrize("format_", ["csv", "tsv", "jsonl_pairs"])
def test_own_lists_may_name_local_files(tmp_path, format_, written, url):
    path = tmp_path / "list"
    path.write_bytes(text_of(format_, [(written, "a dog"), PAIRS[0]]))
    found = run(source(format_, path))
    assert [row["url"] for row in found.rows] == [url, PAIRS[0][0]]


@pytest.mark.parametrize(
    "written",
    [
        *("ftp://a.org/1.jpg", "//a.org/1.jpg", "file://host/1.jpg", "images/", "http:///1"),
        *(r"C:\images\1.jpg", "d:/images/1.jpg", r"\\server\images\1.jpg"),
    ],
)
def test_what_is_no_path_and_no_url_is_a_reject(tmp_path, written):
    (tmp_path / "list").write_bytes(text_of("csv", [(written, "a dog"), PAIRS[0]]))
    found = run(source("csv", tmp_path / "list"))
    assert len(found.rows) == 1 and [r["reason"] for r in found.rejects] == ["bad_url"]


@pytest.mark.parametrize("written", ["images/1.jpg", "file:///etc/passwd", "/etc/passwd"])
def test_a_list_of_others_cannot_name_local_files(tmp_path, written):
    for format_ in ("cc3m", "cc12m"):
        (tmp_path / "list").write_bytes(text_of(format_, [(written, "a dog")]))
        assert [r["reason"] for r in run(source(format_, tmp_path / "list")).rejects] == ["bad_url"]
    remote = source("csv", Path("list")).model_copy(update={"list": "http://a.org/list.csv"})
    assert not remote.names_local_images


def test_local_images_are_read_beside_the_list(tmp_path):
    (tmp_path / "lists" / "images").mkdir(parents=True)
    image = encode_jpeg(np.full((60, 80, 3), 120, np.uint8), 90)
    (tmp_path / "lists" / "images" / "a b.jpg").write_bytes(image)
    (tmp_path / "elsewhere.jpg").write_bytes(image)
    (tmp_path / "lists" / "link.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    (tmp_path / "lists" / "broken.jpg").symlink_to("nowhere")
    (tmp_path / "lists" / "text.jpg").write_text("a page")
    (tmp_path / "lists" / r"back\slash.jpg").write_bytes(image)
    names = ["images/a b.jpg", str(tmp_path / "elsewhere.jpg"), "../elsewhere.jpg", "link.jpg",
             r"images\a b.jpg", r"..\elsewhere.jpg", r"back\slash.jpg", "broken.jpg", "gone.jpg",
             "text.jpg", "images", "http://a.org/1.jpg"]  # fmt: skip
    with (tmp_path / "lists" / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("url", "caption"), *((name, "a dog") for name in names)])
    params = source("csv", tmp_path / "lists" / "list.csv")
    urls = [row["url"] for row in run(params).rows]
    _, download = params.stages("own", DownloadParams(contact="tests"))
    asked = []

    def engine(remote):
        asked.extend(remote)
        return ["fetched" for _ in remote]

    folder = Path(download.params.images_folder)
    outcomes = LocalImagesEngine(engine, ImageRules(32, 90, 8, 10**6), folder)(urls)
    assert asked == ["http://a.org/1.jpg"] and outcomes[-1] == "fetched"
    assert [getattr(o, "reason", "stored") for o in outcomes[:-1]] == [
        *["stored"] * 7, "linked_file", "missing_file", "not_an_image", "damaged_file",
    ]  # fmt: skip


@pytest.mark.parametrize("format_", ["jsonl_pairs", "parquet_pairs"])
def test_a_row_may_have_several_captions(tmp_path, format_):
    rows = [
        {"url": PAIRS[0][0], "caption": ["one", "two", " "]},
        {"url": PAIRS[1][0], "caption": [None, "three"]},
        {"url": PAIRS[2][0], "caption": []},
    ]
    path = tmp_path / "list"
    if format_ == "parquet_pairs":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = run(source(format_, path))
    assert [row["captions"] for row in found.rows] == [["one", "two"], ["three"]]
    assert [row["reason"] for row in found.rejects] == ["empty_caption"]


def test_a_folder_of_texts_with_any_names_is_read(tmp_path):
    names = [b"caf\xe9.txt", b"a.txt", b"b.txt.gz", b"._a.txt"]
    for name in names:
        data = b"a text that is long enough of a book"
        packed = gzip.compress(data) if name.endswith(b".gz") else data
        (tmp_path / os.fsdecode(name)).write_bytes(packed)
    (tmp_path / "broken.txt").symlink_to("nowhere.txt")
    params = source("txt", tmp_path, slice_files=2)
    found = run(params)
    ids = {row["doc_id"] for row in found.rows}
    assert ids == {"own/a.txt", "own/b.txt.gz", r"own/caf\xe9.txt"}
    (reject,) = found.rejects
    assert reject["sample_id"] == "own/broken.txt" and "nowhere.txt" in reject["detail"]
    assert plan(params) == 4


@pytest.mark.parametrize(
    ("format_", "key", "words"),
    [
        ("webdataset", "folder", r"holds shard-000\.tar\.lz4"),
        ("image_folder", "folder", "the folder holds no files; correct the path"),
        ("openwebtext", "file", r"holds shard-000\.tar\.lz4"),
        ("cc_news", "file", r"holds shard-000\.tar\.lz4"),
    ],
)
def test_a_folder_without_its_archives_is_refused_at_plan(tmp_path, format_, key, words):
    (tmp_path / ".hidden").write_bytes(b"x")
    if format_ != "image_folder":
        (tmp_path / "shard-000.tar.lz4").write_bytes(b"x")
    section = {"format": format_, key: str(tmp_path)}
    (stage,) = (
        TypeAdapter(AnySource)
        .validate_python(section)
        .stages("own", DownloadParams(contact="tests"))
    )
    with pytest.raises(RecipeError, match=words):
        stage.expects()


def test_the_lines_of_many_parts_are_estimated_from_some(tmp_path):
    for i in range(40):
        (tmp_path / f"{i:02d}.jsonl").write_bytes(text_of("jsonl", PAIRS))
    assert plan(source("jsonl", tmp_path)) == 360
