"""Rows of the images table: none without a whole image, and a damaged one is named later."""

import io
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dataprep.images import ImageError, ImageRules, encode_jpeg, store_image
from orchestration.slice_commit import commit_slice
from orchestration.slices import Slice, range_slices
from orchestration.storage.store import Store
from orchestration.suspects import joined
from pipelines.ingest import store_images
from pipelines.ingest.store_images import Found, image_row, store_found
from pipelines.readers.kept_images import KeptImages, cut_views
from pipelines.report.contact_sheets import thumbnails
from pipelines.tokens.image_tokens import Params as TokenParams
from pipelines.tokens.image_tokens import ViewTokenizer
from tests.committing import commit_tables
from tests.pipelines.ingest.test_download import fetcher

RULES = ImageRules(64, 90, 16, 200_000_000)
PIXELS = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
JPEG = encode_jpeg(PIXELS, 90)
STORED = store_image(JPEG, RULES)
LONG = Image.new("L", (200, 65_501))
DAMAGED = {
    "no bytes": replace(STORED, jpeg=b""),
    "cut in two": replace(STORED, jpeg=STORED.jpeg[: len(STORED.jpeg) // 2]),
    "a PNG": replace(STORED, jpeg=b"\x89PNG\r\n\x1a\n" + bytes(80)),
    "another image": replace(STORED, jpeg=JPEG),
    "another width": replace(STORED, width=STORED.width + 1),
    "zeros": replace(STORED, jpeg=bytes(500)),
}


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("case", DAMAGED)
def test_no_row_is_made_of_a_damaged_jpeg(case):
    assert image_row("s/1", "s", STORED, [])["jpeg"] == STORED.jpeg
    with pytest.raises(ImageError, match="unencodable: the stored JPEG is") as caught:
        image_row("s/1", "s", DAMAGED[case], [])
    assert caught.value.reason == "unencodable"


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_result_of_a_fetch_engine_is_one_reject_beside_good_rows(tmp_path, case):
    fetch = fetcher(tmp_path, ["ok", "broken", "ok", "http_404"])
    fetch.engine.known["broken"] = DAMAGED[case]
    (slice_,) = range_slices(4, 10)
    tables = fetch(slice_).tables
    assert tables["data"]["sample_id"].to_pylist() == ["s/0", "s/2"]
    found = {row["sample_id"]: row["reason"] for row in tables["rejects"].to_pylist()}
    assert found == {"s/1": "unencodable", "s/3": "http_404"}


def test_an_image_that_no_jpeg_can_hold_is_one_reject_beside_good_rows():
    files = {"a": JPEG, "long": png(LONG), "wide": png(LONG.rotate(90, expand=True)), "b": JPEG}
    found = [Found(name, f"a.zip/{name}", lambda data=data: data) for name, data in files.items()]
    (output,) = store_found(found, "s", replace(RULES, short_side=256), 256)
    tables = output.tables
    assert tables["data"]["sample_id"].to_pylist() == ["s/a", "s/b"]
    rejects = tables["rejects"].to_pylist()
    assert [(row["sample_id"], row["reason"]) for row in rejects] == [
        ("s/long", "unencodable"),
        ("s/wide", "unencodable"),
    ]
    assert all(row["detail"].startswith("a.zip/") and "65500" in row["detail"] for row in rejects)


@pytest.mark.parametrize("max_bytes", [1 << 27, 3 * len(STORED.jpeg)])
def test_a_slice_of_any_length_is_stored_in_pieces(tmp_path, monkeypatch, max_bytes):
    monkeypatch.setattr(store_images, "_MAX_PIECE_BYTES", max_bytes)
    bad = {3, 4, 5, 30, *range(60, 80)}
    read: list[int] = []

    def reading(number: int) -> bytes:
        read.append(number)
        return b"nothing" if number in bad else JPEG

    found = (Found(f"{n:03d}", "a.tar", partial(reading, n)) for n in range(100))
    outputs = []
    for output in store_found(found, "s", RULES, 16):
        outputs.append(output)
        assert len(output.tables["data"]) <= (16 if max_bytes > 1 << 20 else 4)
        assert len(output.tables["rejects"]) <= 16
        assert sum(piece.num_rows_in for piece in outputs) >= len(read) - 2 * 16
    whole = joined(outputs)
    names = whole.tables["data"]["sample_id"].to_pylist()
    rejected = whole.tables["rejects"]["sample_id"].to_pylist()
    assert names == [f"s/{n:03d}" for n in range(100) if n not in bad]
    assert rejected == [f"s/{n:03d}" for n in sorted(bad)]
    assert whole.num_rows_in == 100
    part = commit_slice(Store(tmp_path), Slice("0", {}), iter(outputs), 16)
    if max_bytes > 1 << 20:
        assert part.tables["data"].row_groups == (16, 16, 16, 16, 12)
    assert part.tables["rejects"].row_groups == (16, 8)


def damaged_dataset(tmp_path, jpeg: bytes):
    """An images table whose second image is damaged."""
    table = pa.table(
        {
            "sample_id": ["s/good", "s/bad"],
            "jpeg": [STORED.jpeg, jpeg],
            "captions": [["a"], ["b"]],
            "label": ["", ""],
        }
    )
    return commit_tables(Store(tmp_path).sub("images"), [table], row_group_rows=8)


def kept(tmp_path, images) -> KeptImages:
    locations = pa.table({"dataset": [0, 0], "row": [0, 1], "captions": [["a"], ["b"]]})
    table = commit_tables(Store(tmp_path).sub("kept"), [locations], row_group_rows=8)
    return KeptImages([table], [images], ["sample_id", "label", "jpeg", "captions"])


NAMED = "stored image of s/bad is damaged .* run again"


@pytest.mark.parametrize("jpeg", [b"", b"\xff\xd8\xff", bytes(99)])
def test_training_of_the_tokenizer_names_a_damaged_image(tmp_path, jpeg):
    images = kept(tmp_path, damaged_dataset(tmp_path, jpeg))
    with pytest.raises(ImageError, match=NAMED):
        cut_views(images, np.arange(2), min_crop_scale=0.5, seed=0, view=0, size=32, flip=True)


@pytest.mark.parametrize("jpeg", [b"", b"\xff\xd8\xff", bytes(99)])
def test_the_data_report_names_a_damaged_image(tmp_path, jpeg):
    with pytest.raises(ImageError, match=NAMED):
        thumbnails(damaged_dataset(tmp_path, jpeg), [0, 1], 32)


@pytest.mark.parametrize("jpeg", [b"", b"\xff\xd8\xff", bytes(99)])
def test_image_tokens_name_a_damaged_image(tmp_path, jpeg):
    stage = ViewTokenizer.__new__(ViewTokenizer)
    stage.params = TokenParams(num_views=1)
    stage.images = kept(tmp_path, damaged_dataset(tmp_path, jpeg))
    with pytest.raises(ImageError, match=NAMED):
        stage._cut("s/bad", stage.images.take(np.array([1]))["jpeg"][0].as_py())
