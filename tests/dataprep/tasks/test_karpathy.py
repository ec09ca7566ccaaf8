"""Karpathy's splits for retrieval: one example per image with all of its captions."""

import json

import pytest

from dataprep.sources.annotations import AnnotationError
from dataprep.tasks.karpathy import read_coco_captions, read_flickr30k_captions
from tests.dataprep.test_annotated import coco_image


def written(tmp_path, images, name="dataset_coco.json"):
    path = tmp_path / name
    path.write_text(json.dumps({"images": images, "dataset": name}))
    return path


def test_an_image_has_all_of_its_captions_and_no_label(tmp_path):
    path = written(
        tmp_path,
        [
            coco_image(9, "train", "A man  rides.", " ", "A rider"),
            coco_image(25, "restval", "Giraffes"),
            coco_image(30, "val", "A vase"),
        ],
    )
    first, second = read_coco_captions(path, ("train", "restval"))
    assert (first.id, first.texts) == ("9", ("A man rides.", "A rider"))
    assert first.images == ("train2014/COCO_train2014_000000000009.jpg",)
    assert second.id == "25" and second.labels == ()
    assert [e.id for e in read_coco_captions(path, ("val",))] == ["30"]


def test_flickr30k_is_named_by_its_files(tmp_path):
    image = {
        "sentids": [0, 1, 2, 3, 4],
        "imgid": 0,
        "sentences": [{"tokens": ["a"], "raw": f"Dog {i}.", "imgid": 0, "sentid": i}
                      for i in range(5)],
        "split": "test",
        "filename": "1007129816.jpg",
    }  # fmt: skip
    path = written(tmp_path, [image, {**image, "split": "val", "filename": "2.jpg"}])
    (example,) = read_flickr30k_captions(path, ("test",))
    assert (example.id, example.images) == ("1007129816", ("1007129816.jpg",))
    assert example.texts == tuple(f"Dog {i}." for i in range(5))


def test_every_bad_entry_is_one_reject_of_each_split(tmp_path):
    images = [
        coco_image(1, "test", "A dog"),
        coco_image(2, "test", "", " "),
        coco_image(3, "held", "A cat"),
        {"cocoid": 4},
        coco_image(1, "test", "Again"),
        7,
        coco_image(1, "test", "A boat") | {"cocoid": True},
    ]
    expected = {
        "2": "empty_text", "3": "unknown_split", "entry-3": "malformed_entry", "1+2": "repeated_id",
        "entry-5": "malformed_entry", "entry-6": "malformed_entry",
    }  # fmt: skip
    path = written(tmp_path, images)
    good, *others = read_coco_captions(path, ("test",))
    assert good.id == "1" and {e.id: e.reason for e in others} == expected
    in_all = {"3", "entry-3", "entry-5"}
    assert {e.id for e in read_coco_captions(path, ("val",))} == in_all


def test_a_file_of_another_format_is_refused_by_its_name(tmp_path):
    path = tmp_path / "captions_val2014.json"
    path.write_text(json.dumps({"annotations": []}))
    with pytest.raises(AnnotationError, match=r"captions_val2014\.json: not a file of Karpathy's"):
        list(read_coco_captions(path, ("test",)))
