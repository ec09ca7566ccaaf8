"""Texts and names that did not come from decoding UTF-8: no reader lets them reach Arrow as such.

The image and document stages are tested in ``tests/pipelines/ingest``.
"""

import io
import json
import lzma
import os
import tarfile
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataprep.schemas import DOCUMENTS, reject, rejects_table, table_of
from dataprep.sources import documents, imagenet21k, openwebtext, own_lists, sbu, webdataset
from dataprep.sources.annotations import json_elements
from dataprep.sources.coco import read_coco
from dataprep.sources.documents import document_tables
from dataprep.sources.entries import index_tables
from dataprep.sources.lines import line_ranges
from dataprep.sources.names import DistinctNames, is_housekeeping, safe_name
from dataprep.sources.zips import open_zips
from dataprep.text import arrow_safe, clean_caption, clean_document

BAD_NAMES = [b"caf\xe9.jpg", b"\xff\xfe.jpg", b"a\x80b.jpg", b"line\nbreak.jpg"]


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain", "plain"),
        ("a \ud83d b", "a \ufffd b"),
        ("\udc00\ud83d", "\ufffd\ufffd"),
        ("\ud83d\ude00", "\U0001f600"),
        ("caf\udce9", "caf\ufffd"),
    ],
)
def test_lone_surrogates_become_replacement_characters(text, safe):
    assert arrow_safe(text) == clean_caption(text) == clean_document(text) == safe


@given(text=st.text(st.characters(), max_size=20))
def test_every_text_becomes_one_that_utf8_can_hold(text):
    encoded = arrow_safe(text).encode()
    assert encoded.decode() == text or any("\ud800" <= c <= "\udfff" for c in text)


@given(names=st.sets(st.binary(min_size=1, max_size=6), max_size=9))
def test_different_names_have_different_ids(names):
    ids = {safe_name(os.fsdecode(name)) for name in names}
    assert len(ids) == len(names)
    assert all(found.isprintable() or not found.isascii() for found in ids)
    assert all(found.encode() for found in ids)


def test_a_table_holds_any_string(tmp_path):
    rows = [{"doc_id": "a\udce9", "source": "s", "text": "b\ud83d"}]
    assert table_of(rows, DOCUMENTS).to_pylist() == [
        {"doc_id": "a\ufffd", "source": "s", "text": "b\ufffd"}
    ]
    (row,) = rejects_table([reject("i", "s", "r", "x\udfff", "http://a/\ud800")]).to_pylist()
    assert (row["detail"], row["url"]) == ("x\\udfff", "http://a/\ufffd")


LONE = [r"A long enough line of text \ud83d here.", r"\udc00", r"x\udbffy"]


@pytest.mark.parametrize("escaped", LONE)
def test_json_escapes_of_half_a_character_do_not_end_a_stage(tmp_path, escaped):
    cleaned = clean_caption(json.loads(f'"{escaped}"'))
    path = tmp_path / "list"
    line = f'{{"text": "{escaped}", "url": "http://a.org/1.jpg", "caption": "{escaped}"}}\n'
    path.write_text(line + '{"text": "good", "url": "http://a.org/2.jpg", "caption": "good"}\n')
    (line_range,) = line_ranges(path, 9)
    rows, _ = document_tables(documents.read_jsonl(path, line_range, "text"), "s", "f", 1)
    assert rows["text"].to_pylist() == [cleaned, "good"]
    rows, _ = index_tables(own_lists.read_jsonl(path, line_range, "url", "caption"), "s", "f")
    assert rows["captions"].to_pylist() == [[cleaned], ["good"]]
    path.write_text(
        f'{{"image_urls": ["http://a.org/1", "{escaped}"], "captions": ["{escaped}", "b"]}}'
    )
    rows, rejects = index_tables(sbu.read_json_form(path, 0, 9), "s", "f")
    assert rows["captions"].to_pylist() == [[cleaned]]
    assert rejects["reason"].to_pylist() == ["bad_url"]
    image = f'{{"cocoid": 1, "filepath": "{escaped}", "filename": "{escaped}", "split": "train", '
    path.write_text(f'{{"images": [{image} "sentences": [{{"raw": "{escaped}"}}]}}]}}')
    (found,) = read_coco(path, ["train"])
    assert found.captions == [cleaned]


def tar_with(members: list[tuple[bytes, bytes]]) -> bytes:
    """A tar whose names are the given bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in members:
            member = tarfile.TarInfo(os.fsdecode(name))
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize("name", BAD_NAMES)
def test_members_of_tars_with_names_that_are_not_utf8_are_read(tmp_path, name):
    stem = name.removesuffix(b".jpg")
    shown = safe_name(os.fsdecode(stem))
    path = tmp_path / "a.tar"
    path.write_bytes(tar_with([(name, b"image"), (stem + b".txt", b"a dog")]))
    (sample,) = webdataset.read_tar(path)
    assert sample == webdataset.Sample(shown, b"image", ["a dog"])
    inner = path.read_bytes()
    path.write_bytes(tar_with([(stem + b".tar", inner)]))
    (synset,) = imagenet21k.synsets(path)
    assert synset.wnid == shown
    first, second = imagenet21k.read_synset(path, synset)
    assert (first.name, second.name) == (shown, f"{shown}+2")
    path.write_bytes(lzma.compress(tar_with([(stem + b".txt", b"a text")])))
    (document,) = openwebtext.read_archive(tmp_path, "a.tar")
    assert document.name == f"a/{shown}.txt"


@pytest.mark.parametrize("name", BAD_NAMES[:3])
def test_text_files_with_names_that_are_not_utf8_are_read(tmp_path, name):
    (tmp_path / os.fsdecode(name)).write_text("a text")
    (tmp_path / "good").write_text("good")
    found = documents.read_text_files(tmp_path, [os.fsdecode(name), "good"])
    rows, _ = document_tables(found, "s", "f", 1)
    assert rows["doc_id"].to_pylist() == [f"s/{safe_name(os.fsdecode(name))}", "s/good"]


@pytest.mark.parametrize("name", ["h\u00fcnde/1.jpg", "\u732b.jpg", "a\u0301.jpg"])
def test_names_in_zips_are_found_with_and_without_the_utf8_flag(tmp_path, name):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, b"image")
    flagged = path.read_bytes()
    assert open_zips([path]).read(name) == b"image"
    local, central = flagged.index(b"PK\x03\x04"), flagged.index(b"PK\x01\x02")
    without = bytearray(flagged)
    without[local + 7] &= ~8
    without[central + 9] &= ~8
    path.write_bytes(bytes(without))
    assert open_zips([path]).read(name) == b"image"


@pytest.mark.parametrize(
    "path",
    ["._0.jpg", "a/._0.jpg", ".DS_Store", "__MACOSX/a/0.json", "Thumbs.db", "a/desktop.ini",
     ".git/x", "a/.hidden/b.jpg", "@eaDir/0.jpg"],
)  # fmt: skip
def test_what_operating_systems_leave_is_not_data(path):
    assert is_housekeeping(path)


@pytest.mark.parametrize(
    "path", ["0.jpg", "./0.jpg", "../a/0.jpg", "a._b/c.jpg", "MACOSX/a", "__x__"]
)
def test_data_is_not_taken_for_housekeeping(path):
    assert not is_housekeeping(path)


def test_an_annotation_in_a_zip_of_a_mac_is_found(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__MACOSX/._a.json", b"\0\5\x16\7")
        archive.writestr("a.json", b"[1]")
        archive.writestr(".x.json", b"[2]")
    assert list(json_elements(path, None, "a list")) == [1]


@given(names=st.lists(st.sampled_from(["a", "a+2", "a+2+2", "b", "a+3"]), max_size=12))
def test_repeated_names_are_told_apart(names):
    distinct = DistinctNames()
    found = [distinct(name) for name in names]
    assert len(set(found)) == len(names)
    assert all(
        name == new or new.startswith(f"{name}+") for name, new in zip(names, found, strict=True)
    )
