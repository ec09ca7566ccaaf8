"""COCO and Visual Genome: annotation files and archives in their published formats."""

import bz2
import gzip
import json
import lzma
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataprep.sources.annotations import AnnotationError
from dataprep.sources.coco import evaluation_ids, read_coco
from dataprep.sources.flickr30k import read_flickr30k
from dataprep.sources.members import MemberError
from dataprep.sources.visual_genome import coco_ids, read_visual_genome
from dataprep.sources.zips import open_zips

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
    bad = [{"split": "train"}, None, {"split": 3}, coco_image(2, "train", "y") | {"sentences": [1]}]
    path.write_text(json.dumps({"images": [coco_image(1, "train", "x"), *bad]}))
    good, *others = read_coco(path, ("train",))
    assert (good.captions, good.problem) == (["x"], None)
    assert [image.problem for image in others] == [
        "images[1]: filename is None, expected str",
        "images[2]: not an object",
        "images[3]: filename is None, expected str",
        "images[4]: a sentence without raw",
    ]
    assert len({image.name for image in others}) == 4
    assert len(list(read_coco(path, ("val",)))) == 2, "an entry without a split may be in any split"
    with pytest.raises(AnnotationError, match=r"images\[1\]: filename"):
        evaluation_ids(path)
    path.write_text(json.dumps({"images": bad}))
    with pytest.raises(AnnotationError, match=r"no readable entry; images\[0\]: filename is None"):
        list(read_coco(path, ("train",)))


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


def read(path, captions: int | None, phrases: int, seed: int = 0):
    members = {"VG_100K/1.jpg", "VG_100K_2/2.jpg"}
    return list(read_visual_genome(path, members, captions=captions, phrases=phrases, seed=seed))


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
    assert len(read(regions, None, 1)[0].captions) == 20


def test_coco_ids_are_read_from_image_data(tmp_path):
    path = tmp_path / "image_data.json"
    path.write_text(json.dumps([{"image_id": 1, "coco_id": None}, {"image_id": 2, "coco_id": 30}]))
    assert coco_ids(path) == {"2": 30}


@given(content=JSON)
def test_no_annotation_file_crashes_a_reader(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "a.json"
    path.write_text(json.dumps(content))
    for reader in (
        lambda: list(read_coco(path, ("train",))),
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
    archives = open_zips([tmp_path / "a.zip", tmp_path / "b.zip"])
    assert archives.read("x/1.jpg") == b"x/1.jpg" * 50
    with pytest.raises(MemberError) as damaged:
        archives.read("y/2.jpg")
    assert damaged.value.reason == "damaged_file" and "b.zip" in damaged.value.detail
    with pytest.raises(MemberError) as missing:
        archives.read("z/3.jpg")
    assert missing.value.reason == "missing_file"
    (tmp_path / "c.zip").write_bytes(b"no archive")
    with pytest.raises(zipfile.BadZipFile, match=r"c\.zip"):
        open_zips([tmp_path / "c.zip"])


def test_entries_of_one_name_have_distinct_ids(tmp_path):
    path = tmp_path / "a.json"
    images = [coco_image(1, "train", "a"), coco_image(1, "train", "b"), coco_image(2, "train", "c")]
    path.write_text(json.dumps({"images": images}))
    assert [image.name for image in read_coco(path, ["train"])] == ["1", "1+2", "2"]
    images = [coco_image(1, "train", "a") | {"filename": name} for name in ("a.jpg", "a.png", "b")]
    path.write_text(json.dumps({"images": images}))
    assert [image.name for image in read_flickr30k(path, ["train"])] == ["a", "a+2", "b"]
    path.write_text(json.dumps([{"id": 1, "regions": [region("x")]}] * 2))
    assert [image.name for image in read(path, 1, 1)] == ["1", "1+2"]


@pytest.mark.parametrize(
    "bad", [None, 3, {}, {"id": "x", "regions": []}, {"id": 1}, {"id": 2, "regions": [{}]}]
)
def test_the_entries_of_visual_genome_beside_a_bad_one_come_through(tmp_path, bad):
    path = tmp_path / "a.json"
    good = [{"id": i, "regions": [region("a dog")]} for i in (5, 6)]
    path.write_text(json.dumps([good[0], bad, good[1]]))
    first, problem, last = read(path, 1, 1)
    assert (first.name, last.name) == ("5", "6") and "[1]: not an image" in problem.problem
    path.write_text(json.dumps([bad]))
    with pytest.raises(AnnotationError, match="no readable entry"):
        read(path, 1, 1)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_annotations_are_read(coco, compress):
    plain = list(read_coco(coco, ("train",)))
    data = compress(coco.read_bytes())
    coco.write_bytes(data)
    assert list(read_coco(coco, ("train",))) == plain
    coco.write_bytes(data[: len(data) // 2])
    with pytest.raises(AnnotationError, match="not JSON"):
        list(read_coco(coco, ("train",)))


@pytest.mark.parametrize("names", [[], ["a.txt"], ["a.json", "b.json"]])
def test_a_zip_without_one_annotation_file_says_what_it_holds(tmp_path, names):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in names:
            archive.writestr(name, "[]")
    with pytest.raises(AnnotationError, match=rf"holds {', '.join(names) or 'nothing'}"):
        list(read_coco(tmp_path / "a.zip", ("train",)))
