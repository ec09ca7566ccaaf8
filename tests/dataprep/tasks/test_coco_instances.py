"""Objects in COCO's JSON: what pycocotools reads of it, and each kind of annotation that is bad."""

import gzip
import json

import numpy as np
import pytest
from pycocotools.coco import COCO

from dataprep.sources.annotations import AnnotationError
from dataprep.sources.lines import ListError
from dataprep.tasks.coco_instances import (
    check_coco_instances,
    read_categories,
    read_coco_instances,
)
from dataprep.tasks.run_lengths import mask_of

IMAGES = [
    {"id": 42, "file_name": "000000000042.jpg", "width": 40, "height": 30, "license": 1},
    {"id": 7, "file_name": "images/v1/patch0/7.jpg", "width": 20, "height": 50},
    {"id": 8, "file_name": "8.jpg", "width": 9, "height": 9},
]
CATEGORIES = [
    {"id": 90, "name": "tooth  brush", "supercategory": "indoor"},
    {"id": 1, "name": "person"},
    {"id": 13, "name": "stop sign"},
]
SQUARE = [[10, 5, 20, 5, 20, 15, 10, 15]]
COLUMNS = {"size": [50, 20], "counts": [100, 200, 700]}
"Columns 2 to 5 of the image 7."


def annotation(**changes):
    return {
        "id": 1, "image_id": 42, "category_id": 1, "bbox": [10, 5, 10, 10.5], "iscrowd": 0,
        "segmentation": SQUARE, "area": 99.5,
    } | changes  # fmt: skip


HUGE = 10**400
"An integer that JSON can hold and no array."
GOOD = [
    annotation(id=100, image_id=7, bbox=[2, 0, 4, 50], segmentation=COLUMNS, iscrowd=1),
    annotation(id=3),
    annotation(id=2, category_id=90, bbox=[-3, 25, 10, 10], segmentation=[]),
    annotation(id=5, image_id=7, category_id=13, bbox=[0, 0, 5, 5], segmentation=None),
]


def written(folder, annotations=GOOD, **changes):
    path = folder / "instances.json"
    whole = {"info": {}, "images": IMAGES, "annotations": annotations, "categories": CATEGORIES}
    path.write_text(json.dumps(whole | changes))
    return path


def test_images_have_their_objects_in_the_order_of_the_file(tmp_path):
    first, second, third = read_coco_instances(written(tmp_path))
    assert [each.id for each in (first, second, third)] == ["42", "7", "8"]
    assert first.images == ("000000000042.jpg",) and first.size == (40, 30)
    assert second.images == ("images/v1/patch0/7.jpg",)
    assert first.labels == ("person", "tooth brush")
    assert second.labels == ("person", "stop sign")
    assert third.labels == third.objects == () and not third.reason
    assert [thing.id for thing in first.objects] == [3, 2]
    assert first.objects[0].box == (10, 5, 10, 10.5)
    assert first.objects[1].box == (0, 25, 7, 5), "cut at the left and at the bottom"
    assert first.objects[0].area == 99.5 and not first.objects[0].is_crowd
    assert second.objects[0].is_crowd
    assert first.objects[1].mask == second.objects[1].mask == ""


def test_masks_are_those_that_pycocotools_reads(tmp_path):
    path = written(tmp_path)
    theirs = COCO(str(path))
    for example in read_coco_instances(path):
        for thing in example.objects:
            if thing.mask:
                expected = theirs.annToMask(theirs.anns[thing.id]).astype(bool)
                assert (mask_of(thing.mask, *example.size) == expected).all() and expected.any()


def test_categories_may_have_gaps_and_are_sorted_by_id(tmp_path):
    expected = {1: "person", 13: "stop sign", 90: "tooth brush"}
    assert list(read_categories(written(tmp_path)).items()) == list(expected.items())


def test_names_of_categories_are_the_labels_of_the_examples(tmp_path):
    """A decomposed letter and half of a surrogate pair would else be classes that never occur."""
    path = written(tmp_path, categories=[{"id": i, "name": n} for i, n in enumerate(
        ["tooth", "cafe\u0301", "x\ud800", "Stra\u00dfe"])])  # fmt: skip
    objects = [annotation(id=i, category_id=i) for i in range(4)]
    names = read_categories(path).values()
    path = written(tmp_path, objects, categories=json.loads(path.read_text())["categories"])
    assert next(read_coco_instances(path)).labels == tuple(names)


def test_objects365_has_boxes_alone_and_a_missing_area_is_that_of_the_mask_or_box(tmp_path):
    bare = {"id": 9, "image_id": 42, "category_id": 1, "bbox": [1, 2, 3, 4], "isfake": 0}
    areas = (float("nan"), -1, "100", None, HUGE, -HUGE)
    masked = [
        {**bare, "id": i, "segmentation": SQUARE, "area": area}
        for i, area in enumerate(areas, start=10)
    ]
    objects = next(read_coco_instances(written(tmp_path, [bare, *masked]))).objects
    found = [(thing.area, bool(thing.mask)) for thing in objects]
    assert found == [(12, False)] + [(100, True)] * len(areas)


BAD = {
    "bad_box": [
        {"bbox": [float("nan"), 5, 10, 10]}, {"bbox": [1, 5, float("inf"), 10]},
        {"bbox": [1, 5, 10]}, {"bbox": [1, 5, 10, None]}, {"bbox": ["1", 5, 10, 10]},
        {"bbox": [1 << 80, 5, 10, 10]}, {"bbox": [True, 5, 10, 10]}, {"bbox": [HUGE, 5, 10, 10]},
    ],
    "empty_box": [{"bbox": [1, 5, 0, 10]}, {"bbox": [1, 5, 10, -2]}],
    "box_outside": [
        {"bbox": [40, 5, 10, 10]}, {"bbox": [1, -20, 10, 10]}, {"bbox": [1e9, 5, 2, 2]},
    ],
    "unknown_label": [{"category_id": 2}],
    "unknown_image": [{"image_id": 43}],
    "mask_size": [{"segmentation": COLUMNS}],
    "bad_mask": [
        {"segmentation": [[1, 2, 3]]}, {"segmentation": {"size": [30, 40], "counts": [5]}},
        {"segmentation": [[1, 1, 5, 1, HUGE, 5]]},
        {"segmentation": {"size": [30, 40], "counts": [HUGE, 5]}},
    ],
    "empty_mask": [{"segmentation": {"size": [30, 40], "counts": [1200]}}],
    "malformed_entry": [
        {"iscrowd": 2}, {"iscrowd": "no"}, {"bbox": None}, {"image_id": "42"}, {"category_id": 1.5},
        {"category_id": 1 << 90},
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "change"), [(reason, change) for reason, some in BAD.items() for change in some]
)
def test_an_annotation_that_cannot_be_used_is_a_reject_of_its_id(tmp_path, reason, change):
    made = list(read_coco_instances(written(tmp_path, [*GOOD, annotation(id=77, **change)])))
    assert made[:3] == list(read_coco_instances(written(tmp_path)))
    (rejected,) = made[3:]
    assert (rejected.id, rejected.reason) == ("annotation-77", reason)
    assert rejected.detail.startswith("instances.json: annotations[4]: ")


def test_entries_without_an_id_and_repeated_ids_are_rejects(tmp_path):
    wrong = [
        None,
        5,
        {"id": "x"},
        {},
        annotation(id=3, image_id=7, segmentation=None),
        annotation(id=1 << 70),
    ]
    made = list(read_coco_instances(written(tmp_path, [*GOOD, *wrong])))
    assert [each.labels for each in made[:3]] == [
        ("person", "tooth brush"), ("person", "stop sign"), ()
    ]  # fmt: skip
    assert sorted((each.id, each.reason) for each in made[3:]) == [
        (f"annotation-{1 << 70}", "malformed_entry"),
        ("annotation-3", "repeated_id"),
        *((f"annotations-{i}", "malformed_entry") for i in (4, 5, 6, 7)),
    ]


def test_images_that_cannot_be_used_are_rejects_and_so_are_their_annotations(tmp_path):
    wrong = [
        {**IMAGES[0], "id": 50, "width": 0},
        {**IMAGES[0], "id": 51, "file_name": " "},
        {**IMAGES[0], "id": 1 << 80},
        {"id": 52},
        "image",
        {**IMAGES[0], "width": 99},
    ]
    annotations = [*GOOD, annotation(id=70, image_id=50)]
    path = written(tmp_path, annotations, images=[*IMAGES, *wrong])
    made = list(read_coco_instances(path))
    assert [(each.id, each.reason) for each in made[3:]] == [
        *((f"entry-{i}", "malformed_entry") for i in range(3, 8)),
        ("42+2", "repeated_id"),
        ("annotation-70", "unknown_image"),
    ]


def test_a_test_split_has_images_alone(tmp_path):
    path = tmp_path / "image_info_test-dev2017.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"images": IMAGES}).encode()))
    made = list(read_coco_instances(path, is_labeled=False))
    assert [(each.id, each.labels, each.objects) for each in made] == [
        (name, (), ()) for name in ("42", "7", "8")
    ]
    with pytest.raises(AnnotationError, match="the list categories"):
        list(read_coco_instances(path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"categories": [*CATEGORIES, {"id": 1, "name": "x"}]},
            r"categories\[3\]: another .* id 1",
        ),
        ({"categories": [*CATEGORIES, {"id": 2, "name": "person"}]}, "the name person"),
        ({"categories": [{"id": "1", "name": "x"}]}, r"categories\[0\]: id = '1', expected int"),
        ({"categories": [{"id": 1, "name": " "}]}, r"categories\[0\]: the name is empty"),
        ({"categories": {}}, "the list categories"),
        ({"annotations": None}, "the list annotations"),
        ({"images": 3}, "the list images"),
    ],
)
def test_a_file_of_another_form_is_refused_by_name(tmp_path, changes, message):
    with pytest.raises(AnnotationError, match=message):
        list(read_coco_instances(written(tmp_path, **changes)))


def test_a_file_without_a_readable_image_is_refused(tmp_path):
    with pytest.raises(ListError, match="no readable entry"):
        list(read_coco_instances(written(tmp_path, [], images=[{"id": 1}])))


def test_a_file_that_is_cut_off_is_found_by_its_ends(tmp_path):
    path = written(tmp_path)
    whole = path.read_bytes()
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le"):
        for data in (whole, whole + b"\n\n", json.dumps(json.loads(whole), indent=1).encode()):
            path.write_bytes(data.decode().encode(encoding))
            check_coco_instances(path)
            assert next(iter(read_coco_instances(path))).labels
            path.write_bytes(path.read_bytes()[:-20])
            with pytest.raises(AnnotationError, match=r"not JSON .the file is cut off"):
                check_coco_instances(path)
    path.write_bytes(b"x" * 9999 + whole)
    with pytest.raises(AnnotationError, match="no object"):
        check_coco_instances(path)
    path.write_bytes(b"")
    with pytest.raises(AnnotationError, match="no object"):
        check_coco_instances(path)
    path.write_bytes(gzip.compress(whole)[:-20])
    check_coco_instances(path)  # reading it tells
    with pytest.raises(AnnotationError, match=r"not COCO's annotations of objects.*a folder"):
        check_coco_instances(tmp_path)


def test_images_whose_names_differ_in_their_folders_are_found_by_whole_names(tmp_path):
    names = ["cam1/1.jpg", "cam2/1.jpg", "cam1/2.jpg", "3.jpg", "3.jpg", "x/4.jpg"]
    names += ["cam1\\5.jpg", "cam2/5.jpg", "a/caf\u00e9.jpg", "b/cafe\u0301.jpg", "c\\6.jpg"]
    images = [{**IMAGES[0], "id": i, "file_name": name} for i, name in enumerate(names)]
    found = read_coco_instances(written(tmp_path, [], images=images))
    assert [each.whole_names for each in found] == [
        *(True, True, False, False, False, False),
        *(True, True, True, True, False),
    ]


def test_many_annotations_in_any_order_come_to_their_images(tmp_path):
    rng = np.random.default_rng(0)
    images = [{**IMAGES[0], "id": int(i)} for i in rng.permutation(50)]
    numbers = rng.integers(0, 50, 400)
    many = [annotation(id=i, image_id=int(n), segmentation=None) for i, n in enumerate(numbers)]
    for example in read_coco_instances(written(tmp_path, many, images=images)):
        wanted = np.flatnonzero(numbers == int(example.id)).tolist()
        assert [thing.id for thing in example.objects] == wanted
