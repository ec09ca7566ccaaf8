"""The miniature web's files against its truth, with the pipeline's readers and other programs.

Tests with the server are in ``test_edge_cases.py``.
"""

import bz2
import csv
import hashlib
import io
import json
import lzma
import tarfile
import zipfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dataprep.miniweb.corpora import TEXT_TRUTH, TRUTH, WebSize, build
from dataprep.miniweb.grammar import COLORS
from dataprep.text import clean_caption
from orchestration.storage.store import Store
from pipelines.ingest.documents import document_slice
from pipelines.ingest.import_images import import_slice
from pipelines.ingest.index import index_slice
from pipelines.ingest.sources.cc3m import Cc3m
from pipelines.ingest.sources.cc12m import Cc12m
from pipelines.ingest.sources.coco import Coco
from pipelines.ingest.sources.imagenet21k import ImageNet21k
from pipelines.ingest.sources.jsonl import JsonLines
from pipelines.ingest.sources.openwebtext import OpenWebText
from pipelines.ingest.sources.own_lists import OwnTable
from pipelines.ingest.sources.sbu import SbuJson, SbuLines
from pipelines.ingest.sources.text import Text
from pipelines.ingest.sources.visual_genome import VisualGenome
from pipelines.ingest.sources.webdataset import WebDataset
from pipelines.ingest.sources.wikipedia import Wikipedia
from tests.dataprep.webs import WHOLE_WEB

FIXED_DIGESTS = {
    "cc3m.tsv": "44d85bb5d7b8af7243b638ae41c8e80c61a13cb106633ee37b236c92246c5253",
    "cc12m.tsv": "b2a861826d9fddaec38e2c6eb8b51ad84493ded912d82b432a602c7fadf3a70b",
    "imagenet21k.tar": "e1a59b2be25cda78698e2be7ca84896a490711edc8f91a6553de74e5d42f4e2f",
    "documents.jsonl": "ba820b84bc35e782e5fb7b63b2087aa5442cdfa6d3fb6b3b21e133d20658c92c",
}
"SHA-256 of the files of ``conftest.SMALL_WEB``; adding a source must not change them."

LIST_FAULTS = {"malformed_line", "empty_caption", "bad_url"}
LISTS = {
    "cc3m": Cc3m(format="cc3m", list="cc3m.tsv"),
    "cc12m": Cc12m(format="cc12m", list="cc12m.tsv"),
    "sbu": SbuLines(
        format="sbu",
        list="SBU_captioned_photo_dataset_urls.txt",
        captions="SBU_captioned_photo_dataset_captions.txt",
    ),
    "sbu_json": SbuJson(format="sbu_json", list="sbu-captions-all.json"),
    "own": OwnTable(format="csv", list="own.csv"),
}
ARCHIVES = {
    "coco": Coco(
        format="coco",
        annotations="dataset_coco.json",
        train_images="train2014.zip",
        val_images="val2014.zip",
    ),
    "visual_genome": VisualGenome(
        format="visual_genome",
        annotations="region_descriptions.json",
        images="images.zip",
        images2="images2.zip",
        image_data="image_data.json",
        coco="dataset_coco.json",
    ),
    "webdataset": WebDataset(format="webdataset", folder="webdataset"),
}
CORPORA = {
    "stories": JsonLines(format="jsonl", file="documents.jsonl"),
    "wikipedia": Wikipedia(
        format="wikipedia", file="wikipedia.xml.bz2", index="wikipedia-index.txt.bz2"
    ),
    "openwebtext": OpenWebText(format="openwebtext", file="openwebtext"),
    "books": Text(format="txt", file="books"),
}


def truth(web: Path, source: str, table: str = TRUTH) -> list[dict]:
    return [row for row in pq.read_table(web / table).to_pylist() if row["source"] == source]


def read(outputs) -> tuple[list[dict], dict[str, str]]:
    """Return all rows, and the reason of each reject by its sample id."""
    tables = [output.tables for output in outputs]
    rows = [row for table in tables for row in table["data"].to_pylist()]
    rejects = [row for table in tables for row in table["rejects"].to_pylist()]
    assert len({row["sample_id"] for row in rejects}) == len(rejects)
    return rows, {row["sample_id"]: row["reason"] for row in rejects}


def failures(rows: list[dict], name: str = "sample_id") -> dict[str, str]:
    return {row[name]: row["outcome"] for row in rows if row["outcome"] != "ok"}


@pytest.mark.parametrize("source", LISTS)
def test_each_list_is_read_as_truth_says(whole_web, monkeypatch, source):
    monkeypatch.chdir(whole_web)
    params, unused = LISTS[source], Store("unused")
    rows, rejects = read(
        output
        for slice_ in params.slices()
        for output in index_slice(params, source, unused, slice_)
    )
    expected = truth(whole_web, source)
    faults = {n: why for n, why in failures(expected).items() if why in LIST_FAULTS}
    assert rejects == faults and faults
    assert [row["sample_id"] for row in rows] == [
        row["sample_id"] for row in expected if row["sample_id"] not in faults
    ]
    if source not in ("cc3m", "cc12m"):
        captions = {row["sample_id"]: clean_caption(row["caption"]) for row in expected}
        assert all(row["captions"] == [captions[row["sample_id"]]] for row in rows)


@pytest.mark.parametrize("source", ARCHIVES)
def test_each_archive_is_read_as_truth_says(whole_web, tmp_path, monkeypatch, source):
    monkeypatch.chdir(whole_web)
    params, folder = ARCHIVES[source], Store(tmp_path)
    params.prepare(SimpleNamespace(folder=folder, run_task=lambda task, *args: task(*args)))
    rows, rejects = read(
        output
        for slice_ in params.slices(folder)
        for output in import_slice(params, source, folder, slice_)
    )
    check_images(rows, rejects, truth(whole_web, source))
    if source == "coco":
        assert all(len(row["captions"]) == 5 for row in rows)
    wanted = {"undecodable", "missing_file", "empty_caption"}
    assert (
        set(rejects.values())
        == wanted
        | {
            "coco": {"damaged_file"},
            "visual_genome": {"damaged_file", "evaluation_image"},
            "webdataset": {"damaged_tar"},
        }[source]
    )


def test_the_tar_of_tars_is_read_as_truth_says(whole_web):
    params = ImageNet21k(format="imagenet21k", archive=str(whole_web / "imagenet21k.tar"))
    unused = Store("unused")
    rows, rejects = read(
        output
        for slice_ in params.slices(unused)
        for output in import_slice(params, "imagenet21k", unused, slice_)
    )
    check_images(rows, rejects, truth(whole_web, "imagenet21k"))


def check_images(rows: list[dict], rejects: dict[str, str], expected: list[dict]) -> None:
    assert rejects == failures(expected) and rejects
    sizes = {row["sample_id"]: (row["original_width"], row["original_height"]) for row in rows}
    assert sizes == {
        row["sample_id"]: (row["width"], row["height"])
        for row in expected
        if row["outcome"] == "ok"
    }


@pytest.mark.parametrize("source", CORPORA)
def test_each_corpus_is_read_as_truth_says(whole_web, monkeypatch, source):
    monkeypatch.chdir(whole_web)
    params = CORPORA[source]
    rows, rejects = read(
        output for slice_ in params.slices() for output in document_slice(params, source, slice_)
    )
    expected = truth(whole_web, source, TEXT_TRUTH)
    assert rejects == failures(expected, "doc_id") and rejects
    texts = {row["doc_id"]: row["text"] for row in expected if row["outcome"] == "ok"}
    assert {row["doc_id"]: row["text"] for row in rows} == texts
    assert len(set(texts.values())) == len(texts)


def test_adding_sources_does_not_change_a_small_web(web):
    digests = {
        name: hashlib.sha256((web / name).read_bytes()).hexdigest() for name in FIXED_DIGESTS
    }
    assert digests == FIXED_DIGESTS
    others = {"images", "words.txt", TRUTH, TEXT_TRUTH, "built.json"}
    assert {path.name for path in web.iterdir()} == others | FIXED_DIGESTS.keys()


def test_the_same_size_gives_the_same_bytes(whole_web, tmp_path):
    build(tmp_path / "again", WHOLE_WEB)
    first, second = (
        {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.rglob("*")
            if path.is_file()
        }
        for folder in (whole_web, tmp_path / "again")
    )
    assert first == second


def test_another_seed_replaces_the_web(tmp_path):
    lists = []
    for seed in (1, 2):
        build(tmp_path / "web", WebSize(seed, 3, 1, 1, 1, 1))
        lists.append((tmp_path / "web" / "cc3m.tsv").read_text())
    assert lists[0] != lists[1]


def test_the_zips_hold_what_the_annotations_name(whole_web):
    images = json.loads((whole_web / "dataset_coco.json").read_text())["images"]
    outcomes = {row["sample_id"]: row["outcome"] for row in truth(whole_web, "coco")}
    assert {image["split"] for image in images} == {"train", "restval", "val", "test"}
    for folder in ("train2014", "val2014"):
        with zipfile.ZipFile(whole_web / f"{folder}.zip") as archive:
            there = {
                f"{image['filepath']}/{image['filename']}"
                for image in images
                if image["filepath"] == folder
                and outcomes.get(f"coco/{image['cocoid']}") != "missing_file"
            }
            assert set(archive.namelist()) == there
    for folder, name in (("VG_100K", "images.zip"), ("VG_100K_2", "images2.zip")):
        with zipfile.ZipFile(whole_web / name) as archive:
            assert {member.split("/")[0] for member in archive.namelist()} == {folder}


def test_half_of_visual_genome_is_from_coco(whole_web):
    data = json.loads((whole_web / "image_data.json").read_text())
    rows = {row["sample_id"]: row for row in truth(whole_web, "visual_genome")}
    for image in data:
        row = rows[f"visual_genome/{image['image_id']}"]
        assert (image["width"], image["height"]) == (row["width"], row["height"])
        source, _, number = (row["copy_of"] or "/").partition("/")
        assert image["coco_id"] == (int(number) if number else None)
        assert (row["outcome"] == "evaluation_image") == (source == "coco_eval")
    assert sum(image["coco_id"] is not None for image in data) == len(data) // 2


def test_the_box_of_a_region_holds_its_shape(whole_web):
    """The pixels of a plain shape's color lie inside its box and reach its sides."""
    regions = json.loads((whole_web / "region_descriptions.json").read_text())
    checked = 0
    with zipfile.ZipFile(whole_web / "images.zip") as archive:
        for image in regions:
            name, first = f"VG_100K/{image['id']}.jpg", image["regions"][:1]
            words = first[0]["phrase"].split() if first else []
            if name not in archive.namelist() or len(words) != 4 or words[0] != "a":
                continue
            try:
                pixels = np.asarray(Image.open(io.BytesIO(archive.read(name))), np.int16)
            except (OSError, zipfile.BadZipFile):
                continue
            distance = np.abs(pixels - np.array(COLORS[words[2]])).max(2)
            down, across = np.nonzero(distance < 20)
            box = first[0]
            assert abs(down.min() - box["y"]) <= box["height"] / 4
            assert box["y"] - 2 <= down.min() and down.max() <= box["y"] + box["height"] + 2
            assert box["x"] - 2 <= across.min() and across.max() <= box["x"] + box["width"] + 2
            checked += 1
    assert checked >= 3


def test_webdataset_tars_have_the_layout_of_img2dataset(whole_web):
    first, last = sorted((whole_web / "webdataset").iterdir())
    with tarfile.open(first) as archive:
        stems = Counter(name.split(".")[0] for name in archive.getnames())
        assert len(stems) == 50 and set(stems.values()) == {2, 3}
    with pytest.raises(tarfile.ReadError), tarfile.open(last) as archive:
        archive.getmembers()


def test_the_index_points_to_the_streams_of_the_dump(whole_web):
    dump = (whole_web / "wikipedia.xml.bz2").read_bytes()
    lines = bz2.decompress((whole_web / "wikipedia-index.txt.bz2").read_bytes()).splitlines()
    assert len(lines) == WHOLE_WEB.num_wikipedia
    for line in lines:
        offset, number, title = line.decode().split(":", 2)
        stream = bz2.BZ2Decompressor().decompress(dump[int(offset) :])
        assert f"<id>{number}</id>".encode() in stream
        assert title.replace("&", "&amp;").encode() in stream
    text = bz2.decompress(dump)
    assert text.startswith(b"<mediawiki") and text.endswith(b"</mediawiki>\n")
    assert text.count(b"<page>") == len(lines) and b"<redirect" in text


def test_openwebtext_archives_are_compressed_tars(whole_web):
    path = whole_web / "openwebtext" / "urlsf_subset00-1_data.xz"
    with tarfile.open(fileobj=io.BytesIO(lzma.decompress(path.read_bytes()))) as archive:
        assert len(archive.getmembers()) == 50
    assert path.with_suffix(".xz.lock").exists()


def test_the_own_list_is_csv(whole_web):
    with (whole_web / "own.csv").open(newline="") as file:
        header, *records = csv.reader(file)
    assert header == ["url", "caption"] and len(records) == WHOLE_WEB.num_own
    for record, row in zip(records, truth(whole_web, "own"), strict=True):
        assert (len(record) == 2) == (row["outcome"] != "malformed_line")
        if row["outcome"] == "ok":
            assert record[1] == row["caption"]
