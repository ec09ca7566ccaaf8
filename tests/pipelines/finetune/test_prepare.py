"""``prepare``: every example of a split ends exactly once, kept with its images or rejected."""

import io
import json
import random
import zipfile
from collections import Counter

import numpy as np
import pyarrow.compute as pc
import pytest
from PIL import Image
from pydantic import TypeAdapter

from dataprep.images import decode_stored, encode_jpeg
from dataprep.schemas import EXAMPLES
from orchestration import Dataset
from orchestration.errors import RecipeError, StageError
from orchestration.fingerprint import fingerprint_of
from orchestration.storage.store import Store
from pipelines.finetune import prepare, prepared_rows
from pipelines.finetune.formats.registry import AnyFormat
from tests.dataprep.tasks.vqa_files import (
    annotation,
    question,
    write_annotations,
    write_questions,
)
from tests.dataprep.test_annotated import coco_image
from tests.dataprep.test_mutated_files import mutated
from tests.in_process import run_in_process
from tests.one_file import serving

VQA = {"num_images": 1, "num_texts": (1, 1), "needs_labels": True}
PAIRS = {"num_images": 2, "num_texts": (1, 1), "needs_labels": True}
CLASSES = {"num_images": 1, "num_texts": (0, 0), "needs_labels": True}
RETRIEVAL = {"num_images": 1, "num_texts": (1, None), "needs_labels": False}
TEXTS = {"num_images": 0, "num_texts": (1, 2), "needs_labels": True}


def jpeg(shade: int, width: int = 60, height: int = 40) -> bytes:
    return encode_jpeg(np.full((height, width, 3), shade, np.uint8), 90)


def prepared(tmp_path, section, needs, split="train"):
    """Run the stage; return rows and rejects by id, which together are all examples, once each."""
    source = TypeAdapter(AnyFormat).validate_python({"slice_rows": 3, **section})
    folder = Store(tmp_path / "out" / str(random.random()))
    run_in_process(prepare.stage(source, split=split, **needs), folder, {})
    rows = Dataset.open(folder).read()
    assert rows.schema.equals(EXAMPLES)
    rejects = Dataset.open(folder, "rejects").read().to_pylist()
    ids = Counter(rows["example_id"].to_pylist())
    ids += Counter(each["sample_id"].removeprefix(f"{split}/") for each in rejects)
    assert set(ids.values()) == {1}
    expected = [example.id for example in source.examples()]
    assert sorted(ids) == sorted(expected)
    assert not folder.exists("annotations.parquet")
    kept = {row["example_id"]: row for row in rows.to_pylist()}
    assert list(kept) == [id_ for id_ in expected if id_ in kept], "in the order of the file"
    return kept, {each["sample_id"].removeprefix(f"{split}/"): each["reason"] for each in rejects}


@pytest.fixture(params=["folder", "zip"])
def coco(request, tmp_path):
    """Questions on 8 images, of which one is damaged, one is tiny and one is missing."""
    ids = range(1, 9)
    questions = [question(i, n, f"What is {n}?") for i in ids for n in range(2)]
    annotations = [annotation(i, n, "net", "mesh", "net") for i in ids for n in range(2)]
    del annotations[3]
    annotations[4]["answers"] = []
    files = {i: jpeg(20 * i) for i in ids} | {4: jpeg(1)[:90], 5: jpeg(2, 1, 1)}
    del files[6]
    images = tmp_path / ("train2014" if request.param == "folder" else "train2014.zip")
    names = {f"COCO_train2014_{i:012d}.jpg": data for i, data in files.items()}
    if request.param == "folder":
        images.mkdir()
        for name, data in names.items():
            (images / name).write_bytes(data)
    else:
        with zipfile.ZipFile(images, "w") as archive:
            for name, data in names.items():
                archive.writestr(f"train2014/{name}", data)
    return {
        "questions": str(write_questions(tmp_path, "train2014", questions)),
        "annotations": str(write_annotations(tmp_path, "train2014", annotations)),
        "images": str(images),
    }


def test_each_question_is_kept_with_its_image_or_rejected(tmp_path, coco):
    kept, rejects = prepared(tmp_path, {"format": "vqav2", "files": [coco]}, VQA)
    assert rejects == {
        "2001": "no_labels", "3001": "no_labels", "4000": "undecodable", "4001": "undecodable",
        "6000": "missing_file", "6001": "missing_file",
    }  # fmt: skip
    assert len(kept) == 10
    row = kept["7001"]
    assert row["texts"] == ["What is 1?"] and row["main_label"] == "net"
    assert row["labels"] == ["net", "mesh", "net"]
    assert abs(decode_stored(row["images"][0]).mean() - 140) < 2
    assert decode_stored(kept["5000"]["images"][0]).shape == (1, 1, 3), "small images are kept"


def test_a_test_split_has_no_labels(tmp_path, coco):
    files = {**coco, "annotations": None}
    kept, _ = prepared(
        tmp_path, {"format": "vqav2", "files": [files]}, VQA | {"needs_labels": False}, "test"
    )
    assert len(kept) == 12 and all(row["labels"] == [] for row in kept.values())
    with pytest.raises(StageError, match=r"used \(16 no_labels; .*no label\); correct data\.test"):
        prepared(tmp_path, {"format": "vqav2", "files": [files]}, VQA, "test")


def test_sentences_of_two_images_lie_in_one_folder_of_all_splits_or_in_their_own(tmp_path):
    rows = [
        {"identifier": f"train-{i}-0-1", "sentence": "Two dogs.", "label": "True", "directory": i}
        for i in range(5)
    ]
    path = tmp_path / "train.json"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for i in range(5):
        folder = tmp_path / "images/train" / str(i)
        folder.mkdir(parents=True)
        for n in range(2 if i != 3 else 1):
            data = io.BytesIO()
            Image.new("RGB", (50, 40), (10 * i, 200 * n, 0)).save(data, "PNG")
            (folder / f"train-{i}-0-img{n}.png").write_bytes(data.getvalue())
    for images in ("images", "images/train"):
        section = {"format": "nlvr2", "file": str(path), "images": str(tmp_path / images)}
        kept, rejects = prepared(tmp_path, section, PAIRS)
        assert rejects == {"train-3-0-1": "missing_file"}
        first, second = map(decode_stored, kept["train-4-0-1"]["images"])
        assert (
            abs(first[0, 0] - [40, 0, 0]).max() < 4 and abs(second[0, 0] - [40, 200, 0]).max() < 4
        )
        assert kept["train-4-0-1"]["labels"] == ["True"]


def test_captioned_images_are_read_with_all_of_their_captions(tmp_path):
    images = [coco_image(n, "restval", f"One {n}", f"Two {n}") for n in (1, 2, 3)]
    images.append(coco_image(4, "restval", " "))
    path = tmp_path / "dataset_coco.json"
    path.write_text(json.dumps({"images": images}))
    with zipfile.ZipFile(tmp_path / "both.zip", "w") as archive:
        for n in (1, 3):
            archive.writestr(f"train2014/COCO_train2014_{n:012d}.jpg", jpeg(9))
        archive.writestr("val2014/a.jpg", jpeg(9))
    section = {"format": "coco_captions", "annotations": str(path), "splits": ["train", "restval"],
               "train_images": str(tmp_path / "both.zip"), "val_images": str(tmp_path)}  # fmt: skip
    kept, rejects = prepared(tmp_path, section, RETRIEVAL)
    assert rejects == {"2": "missing_file", "4": "empty_text"}
    assert {id_: row["texts"] for id_, row in kept.items()} == {
        "1": ["One 1", "Two 1"], "3": ["One 3", "Two 3"],
    }  # fmt: skip


@pytest.mark.parametrize("needs_labels", [True, False])
def test_class_folders_give_labels_and_large_images_are_made_smaller(tmp_path, needs_labels):
    for name, data in {
        "n01/a.JPEG": jpeg(50, 300, 200), "n02/b.JPEG": jpeg(60), "n02/c.txt": b"no image",
        "loose.JPEG": jpeg(70),
    }.items():  # fmt: skip
        (tmp_path / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "train" / name).write_bytes(data)
    section = {"format": "class_folder", "folder": str(tmp_path / "train"),
               "store": {"short_side": 100}}  # fmt: skip
    kept, rejects = prepared(tmp_path, section, CLASSES | {"needs_labels": needs_labels})
    loose = {"loose.JPEG": "no_labels"} if needs_labels else {}
    assert rejects == {"n02/c.txt": "not_an_image", **loose}
    assert decode_stored(kept["n01/a.JPEG"]["images"][0]).shape == (100, 150, 3)
    assert kept["n01/a.JPEG"]["labels"] == ["n01"]


def test_own_images_lie_beside_their_file_or_in_a_folder_or_archive(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.jpg").write_bytes(jpeg(5))
    rows = [f"{name},red|round" for name in ("sub/a.jpg", str(tmp_path / "sub/a.jpg"), "no.jpg")]
    (tmp_path / "own.csv").write_text("\n".join(["image,label", *rows, "x.jpg,", ""]))
    section = {"format": "own_labels", "file": str(tmp_path / "own.csv")}
    kept, rejects = prepared(tmp_path, section, CLASSES)
    assert list(kept) == ["000000002", "000000003"]
    assert kept["000000002"]["labels"] == ["red", "round"]
    assert rejects == {"000000004": "missing_file", "000000005": "no_labels"}
    with zipfile.ZipFile(tmp_path / "i.zip", "w") as archive:
        archive.writestr("own/no.jpg", jpeg(5))
    kept, _ = prepared(tmp_path, {**section, "images": str(tmp_path / "i.zip")}, CLASSES)
    assert list(kept) == ["000000004"]


def test_a_file_given_by_uri_is_copied_and_reads_no_other_file_of_the_machine(tmp_path):
    (tmp_path / "secret.jpg").write_bytes(jpeg(5))
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.jpg").write_bytes(jpeg(5))
    names = ["a.jpg", "../secret.jpg", str(tmp_path / "secret.jpg")]
    lines = [json.dumps({"image": name, "label": "b"}) for name in names]
    with serving("\n".join(lines).encode()) as server:
        section = {"format": "own_labels", "file": server.uri.partition("/lists")[0] + "/o.jsonl",
                   "images": str(tmp_path / "images")}  # fmt: skip
        source = TypeAdapter(AnyFormat).validate_python(section)
        folder, stage = Store(tmp_path / "out"), prepare.stage(source, split="train", **CLASSES)
        assert stage.expects().rows is None
        run_in_process(stage, folder, {})
    assert Dataset.open(folder).read()["example_id"].to_pylist() == ["000000001"]
    rejects = Dataset.open(folder, "rejects").read()
    assert rejects["reason"].to_pylist() == ["missing_file"] * 2
    assert not folder.exists("external")


def test_texts_need_no_images(tmp_path):
    lines = [f"{i}\tA {i}.\tB {i}.\tentailment" for i in range(7)]
    (tmp_path / "dev.tsv").write_text(
        "\n".join(["index\tsentence1\tsentence2\tlabel", *lines, "8\tA.\tB.\tmaybe", ""])
    )
    section = {"format": "glue", "corpus": "rte", "file": str(tmp_path / "dev.tsv")}
    kept, rejects = prepared(tmp_path, section, TEXTS, "dev")
    assert list(kept) == [str(i) for i in range(7)] and rejects == {"7": "unknown_label"}
    assert kept["3"]["texts"] == ["A 3.", "B 3."] and kept["3"]["images"] == []


def test_examples_that_do_not_fit_the_task_are_rejects(tmp_path):
    lines = ["a,b,label", "One.,Two.,x", "One.,,x", ""]
    (tmp_path / "own.csv").write_text("\n".join(lines))
    section = {"format": "own_sentences", "file": str(tmp_path / "own.csv"),
               "sentence_column": "a", "second_sentence_column": "b"}  # fmt: skip
    with pytest.raises(StageError, match=r"1 malformed_entry, 1 empty_text|1 empty_text, 1 malf"):
        prepared(tmp_path, section, TEXTS | {"num_texts": (1, 1)})


def test_files_that_changed_bytes_give_each_example_one_end_or_are_refused(tmp_path):
    rows = [{"identifier": f"dev-{i}-0-1", "sentence": "Dogs.", "label": "True"} for i in range(6)]
    good = "".join(json.dumps(row) + "\n" for row in rows).encode()
    for i in range(6):
        for n in range(2):
            (tmp_path / f"dev-{i}-0-img{n}.png").write_bytes(jpeg(10 * i))
    path, ends = tmp_path / "dev.json", Counter()
    for seed in range(60):
        path.write_bytes(mutated(good, random.Random(seed)))
        section = {"format": "nlvr2", "file": str(path), "images": str(tmp_path)}
        try:
            kept, rejects = prepared(tmp_path, section, PAIRS, "dev")
            ends.update(kept=len(kept), rejected=len(rejects))
        except (RecipeError, StageError) as error:
            assert "\n" not in str(error)
            ends["refused"] += 1
    assert min(ends["kept"], ends["rejected"], ends["refused"]) > 0


def test_a_file_of_another_format_is_a_wrong_recipe(tmp_path):
    (tmp_path / "dev.tsv").write_text("a\tb\n1\t2\n")
    section = {"format": "glue", "corpus": "rte", "file": str(tmp_path / "dev.tsv")}
    with pytest.raises(RecipeError, match=r"dev\.tsv: no TSV file of rte"):
        prepared(tmp_path, section, TEXTS)
    source = TypeAdapter(AnyFormat).validate_python(section)
    with pytest.raises(RecipeError, match=r"dev\.tsv: no TSV file of rte"):
        prepare.stage(source, split="dev", **TEXTS).expects()


def test_what_a_task_needs_of_examples_is_all_of_it_that_enters_the_fingerprint(tmp_path):
    (tmp_path / "dev.tsv").write_text("index\tsentence1\tsentence2\tlabel\n")
    section = {"format": "glue", "corpus": "rte", "file": str(tmp_path / "dev.tsv")}
    source = TypeAdapter(AnyFormat).validate_python(section)

    def fingerprint(**more):
        return fingerprint_of(prepare.stage(source, split="dev", **{**TEXTS, **more}).identity({}))

    assert fingerprint() == fingerprint()
    assert len({fingerprint(), fingerprint(needs_labels=False), fingerprint(num_texts=(1, 1))}) == 3


def test_the_same_image_is_decoded_once_for_neighboring_questions(tmp_path, coco, monkeypatch):
    stored = []
    store = prepared_rows.store_image
    monkeypatch.setattr(
        prepared_rows, "store_image", lambda data, rules: stored.append(data) or store(data, rules)
    )
    section = {"format": "vqav2", "files": [coco], "slice_rows": 16}
    kept, _ = prepared(tmp_path, section, VQA)
    good = {bytes(row["images"][0]) for row in kept.values()}
    assert len(good) == 6 and len(stored) == 6 + 2, "and a damaged one once for each question"


def test_rows_are_written_in_small_row_groups(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(jpeg(5))
    lines = [json.dumps({"image": "a.jpg", "label": i}) for i in range(150)]
    (tmp_path / "own.jsonl").write_text("\n".join(lines))
    source = TypeAdapter(AnyFormat).validate_python(
        {"format": "own_labels", "file": str(tmp_path / "own.jsonl")}
    )
    folder = Store(tmp_path / "out")
    run_in_process(prepare.stage(source, split="train", **CLASSES), folder, {})
    dataset = Dataset.open(folder)
    assert [group.num_rows for group in dataset.row_groups()] == [64, 64, 22]
    assert pc.count_distinct(dataset.read()["example_id"]).as_py() == 150
