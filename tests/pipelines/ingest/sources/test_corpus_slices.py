"""Corpora are cut into slices by their bytes; the documents are the same for any cut."""

import gzip
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter

from orchestration.slices import outputs_of
from pipelines.ingest.documents import document_slice
from pipelines.ingest.sources.registry import AnySource
from tests.dataprep.test_corpora import inner_archive

TEXTS = [f"Document {i} of some length " + "and more words " * (i % 7) for i in range(60)]


def source(format_: str, location: Path, **fields):
    section = {"format": format_, "file": str(location), **fields}
    return TypeAdapter(AnySource).validate_python(section)


def read(params) -> tuple[list[dict], list[dict], list[dict]]:
    """Return the payloads of the slices, the documents, and the rejects."""
    slices = list(params.slices())
    assert [s.id for s in slices] == [f"{i:06d}" for i in range(len(slices))]
    rows: list[dict] = []
    rejects: list[dict] = []
    for slice_ in slices:
        json.dumps(slice_.payload)
        for output in outputs_of(document_slice(params, "own", slice_)):
            rows += output.tables["data"].to_pylist()
            rejects += output.tables["rejects"].to_pylist()
    return [dict(s.payload) for s in slices], rows, rejects


BOOKS = {"a": 300, "b": 700, "c": 1, "d": 0, "e": 2500, "f": 400, "g": 600, "h": 10}


@pytest.mark.parametrize(
    ("slice_bytes", "slice_files", "expected"),
    [
        (1000, 2048, ["ab", "cd", "e", "fgh"]),  # a broken link has no bytes
        (10_000, 2048, ["abcdefgh"]),
        (1, 2048, ["a", "b", "cd", "e", "f", "g", "h"]),
        (10_000, 3, ["abc", "def", "gh"]),
    ],
)
def test_a_folder_of_books_is_cut_by_bytes(tmp_path, slice_bytes, slice_files, expected):
    for name, size in BOOKS.items():
        (tmp_path / f"{name}.txt").write_text("a" * size)
    (tmp_path / "h.txt").unlink()
    (tmp_path / "h.txt").symlink_to("nowhere")
    fields = {"slice_bytes": slice_bytes, "slice_files": slice_files, "min_chars": 5}
    payloads, rows, rejects = read(source("txt", tmp_path, **fields))
    assert ["".join(name[0] for name in p["names"]) for p in payloads] == expected
    assert {row["doc_id"]: len(row["text"]) for row in rows} == {
        f"own/{name}.txt": size for name, size in BOOKS.items() if size >= 5 and name != "h"
    }
    assert [row["sample_id"] for row in rejects] == ["own/c.txt", "own/d.txt", "own/h.txt"]


def jsonl(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


@pytest.mark.parametrize("slice_bytes", [1, 100, 999, 1 << 26])
@pytest.mark.parametrize("format_", ["jsonl", "txt"])
def test_a_file_of_lines_gives_the_same_documents_for_any_cut(tmp_path, format_, slice_bytes):
    data = jsonl(TEXTS) if format_ == "jsonl" else "".join(f"{t}\n" for t in TEXTS).encode()
    (tmp_path / "list").write_bytes(data)
    payloads, rows, rejects = read(source(format_, tmp_path / "list", slice_bytes=slice_bytes))
    assert [row["text"] for row in rows] == [text.strip() for text in TEXTS] and not rejects
    assert [row["doc_id"] for row in rows] == [f"own/{i:09d}" for i in range(1, 61)]
    assert sum(p["num_bytes"] for p in payloads) == len(data)
    for payload in payloads:
        assert payload["num_bytes"] <= slice_bytes or payload["num_lines"] == 1
    assert (len(payloads) == 1) == (slice_bytes > len(data))


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_a_compressed_file_of_lines_is_one_slice(tmp_path, pack):
    for i in range(3):
        (tmp_path / f"{i}.jsonl.x").write_bytes(b"")
        (tmp_path / f"part-{i}.jsonl{'.gz' if pack is gzip.compress else '.xz'}").write_bytes(
            pack(jsonl(TEXTS[20 * i : 20 * i + 20]))
        )
    payloads, rows, rejects = read(source("jsonl", tmp_path, slice_bytes=50, slice_lines=2))
    assert len(payloads) == 3 and all(p.keys() == {"part"} for p in payloads)
    assert [row["text"] for row in rows] == [text.strip() for text in TEXTS] and not rejects
    assert len({row["doc_id"] for row in rows}) == 60


def test_row_groups_of_parquet_are_joined_by_bytes(tmp_path):
    for i, some in enumerate((TEXTS[:35], TEXTS[35:])):
        table = pa.table({"n": range(len(some)), "text": some})
        pq.write_table(table, tmp_path / f"{i}.parquet", row_group_size=4)
    found = {}
    for slice_bytes in (1, 1500, 1 << 26):
        payloads, rows, rejects = read(source("parquet", tmp_path, slice_bytes=slice_bytes))
        assert not rejects and [row["text"] for row in rows] == [text.strip() for text in TEXTS]
        found[slice_bytes] = [row["doc_id"] for row in rows], payloads
    ids = [f"own/0.parquet/{i:09d}" for i in range(1, 36)]
    ids += [f"own/1.parquet/{i:09d}" for i in range(1, 26)]
    assert all(each[0] == ids for each in found.values())
    assert [p["rows"] for p in found[1 << 26][1]] == [[4] * 8 + [3], [4] * 6 + [1]]
    assert [len(p["rows"]) for p in found[1][1]] == [1] * 16
    assert {1} != {len(p["rows"]) for p in found[1500][1]} != {9, 7}


def test_small_archives_share_a_slice(tmp_path):
    for i in range(6):
        texts = {f"{j}.txt": TEXTS[10 * i + j].encode() for j in range(10)}
        (tmp_path / f"urlsf_subset{i:02d}_data.xz").write_bytes(inner_archive(texts))
    size = max(path.stat().st_size for path in tmp_path.iterdir())
    payloads, rows, _ = read(source("openwebtext", tmp_path, slice_bytes=2 * size))
    assert [len(p["names"]) for p in payloads] == [2, 2, 2]
    assert [row["text"] for row in rows] == [text.strip() for text in TEXTS]
