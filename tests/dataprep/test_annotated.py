"""COCO and Visual Genome: annotation files and archives in their published formats."""

import json
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataprep.sources.annotations import AnnotationError
from dataprep.sources.coco import evaluation_ids, read_coco
from dataprep.sources.visual_genome import coco_ids, read_visual_genome
from dataprep.sources.zips import MemberError, ZipSet

JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["images", "split", "cocoid", "regions", "image_id", "phrase", "sentences"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def coco_image(number: int, split: str, *captions: str) -> dict:
    folder = "val2014" if split == "val" else "train2014"
    return {
        "filepath": folder,
        "filename": f"COCO_{folder}_{number:012d}.jpg",
        "split": split,
        "cocoid": number,
        "imgid": 0,
        "sentids": [1],
        "sentences": [{"raw": c, "tokens": c.split(), "sentid": 1} for c in captions],
    }


@pytest.fixture
def coco(tmp_path):
    images = [
        coco_image(9, "train", "A man  rides.", " "),
        coco_image(25, "restval", "Two giraffes"),
        coco_image(30, "val", "A vase"),
        coco_image(31, "test", "A dog"),
    ]
    path = tmp_path / "dataset_coco.json"
    path.write_text(json.dumps({"dataset": "coco", "images": images}))
    return path


def test_coco_gives_the_images_of_its_training_splits(coco):
    first, second = read_coco(coco, ("train", "restval"))
    assert first.member == "train2014/COCO_train2014_000000000009.jpg"
    assert (first.name, first.captions) == ("9", ["A man rides."])
    assert second.captions == ["Two giraffes"]
    assert evaluation_ids(coco) == {30, 31}


def test_an_annotation_with_a_missing_field_is_named(tmp_path):
    path = tmp_path / "dataset_coco.json"
    path.write_text(json.dumps({"images": [coco_image(1, "train", "x"), {"split": "train"}]}))
    with pytest.raises(AnnotationError, match=r"images\[1\]: filename is None, expected str"):
        read_coco(path, ("train",))


def region(phrase: str) -> dict:
    return {"region_id": 1, "phrase": phrase, "x": 0, "y": 0, "width": 5, "height": 5}


@pytest.fixture
def regions(tmp_path):
    content = [
        {"id": 1, "regions": [region(f"thing {i}") for i in range(20)]},
        {"image_id": 2, "regions": [region(" a dog"), region("a dog"), region("")]},
        {"id": 3, "regions": []},
    ]
    path = tmp_path / "region_descriptions.json.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("region_descriptions.json", json.dumps(content))
    return path


def read(path, captions: int, phrases: int, seed: int = 0):
    members = {"VG_100K/1.jpg", "VG_100K_2/2.jpg"}
    return read_visual_genome(path, members, captions=captions, phrases=phrases, seed=seed)


def test_regions_are_drawn_by_the_seed_and_joined(regions):
    many, two, none = read(regions, captions=4, phrases=2)
    assert (many.member, two.member) == ("VG_100K/1.jpg", "VG_100K_2/2.jpg")
    assert len(many.captions) == 4
    drawn = [phrase for caption in many.captions for phrase in caption.split(", ")]
    assert len(drawn) == len(set(drawn)) == 8
    assert two.captions == ["a dog"]
    assert none.captions == []
    assert read(regions, 4, 2) == read(regions, 4, 2) != read(regions, 4, 2, seed=1)
    assert len(read(regions, 100, 1)[0].captions) == 20


def test_coco_ids_are_read_from_image_data(tmp_path):
    path = tmp_path / "image_data.json"
    path.write_text(json.dumps([{"image_id": 1, "coco_id": None}, {"image_id": 2, "coco_id": 30}]))
    assert coco_ids(path) == {"2": 30}


@given(content=JSON)
def test_no_annotation_file_crashes_a_reader(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "a.json"
    path.write_text(json.dumps(content))
    for reader in (
        lambda: read_coco(path, ("train",)),
        lambda: evaluation_ids(path),
        lambda: coco_ids(path),
        lambda: read(path, 1, 1),
    ):
        try:
            reader()
        except AnnotationError as error:
            assert "a.json" in str(error)


def test_archives_are_read_as_one_and_damage_is_named(tmp_path):
    for name, member in (("a.zip", "x/1.jpg"), ("b.zip", "y/2.jpg")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(member, member * 50)
    data = (tmp_path / "b.zip").read_bytes()
    (tmp_path / "b.zip").write_bytes(data.replace(b"y/2.jpgy/2.jpg", b"y/2.jpgy/3.jpg", 1))
    archives = ZipSet([tmp_path / "a.zip", tmp_path / "b.zip"])
    assert archives.read("x/1.jpg") == b"x/1.jpg" * 50
    with pytest.raises(MemberError) as damaged:
        archives.read("y/2.jpg")
    assert damaged.value.reason == "damaged_file" and "b.zip" in damaged.value.detail
    with pytest.raises(MemberError) as missing:
        archives.read("z/3.jpg")
    assert missing.value.reason == "missing_file"
    (tmp_path / "c.zip").write_bytes(b"no archive")
    with pytest.raises(zipfile.BadZipFile, match=r"c\.zip"):
        ZipSet([tmp_path / "c.zip"])
