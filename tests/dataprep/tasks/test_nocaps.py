"""NoCaps: an example per image with its captions and its domain; each bad entry is one reject."""

import json

import pytest

from dataprep.sources.annotations import AnnotationError
from dataprep.sources.lines import ListError
from dataprep.tasks.nocaps import read_nocaps


def image(number, **changes):
    """An entry as published."""
    return {
        "license": 0, "file_name": f"00{number}a.jpg", "height": 1024, "width": 732,
        "coco_url": f"https://s3.amazonaws.com/nocaps/val/00{number}a.jpg",
        "date_captured": "2018-11-06 11:04:33", "open_images_id": f"00{number}a", "id": number,
        "domain": "near-domain",
    } | changes  # fmt: skip


def annotation(image_id, number, caption):
    return {"image_id": image_id, "id": number, "caption": caption}


def written(tmp_path, images, annotations=None, name="nocaps_val_4500_captions.json"):
    path, info = tmp_path / name, {"url": "http://nocaps.org", "version": "0.1"}
    content = {"licenses": [], "info": info, "images": images}
    more = {} if annotations is None else {"annotations": annotations}
    path.write_text(json.dumps(content | more))
    return path


def test_an_image_has_its_captions_in_the_order_of_the_file_and_its_domain(tmp_path):
    annotations = [
        annotation(1, 0, "A  dog."), annotation(0, 1, "A cat"), annotation(1, 2, " "),
        annotation(1, 3, "One dog"),
    ]  # fmt: skip
    images = [image(0, domain="in-domain"), image(1)]
    first, second = read_nocaps(written(tmp_path, images, annotations))
    assert (first.id, first.texts, first.labels) == ("0", ("A cat",), ("in-domain",))
    assert (second.images, second.texts) == (("001a.jpg",), ("A dog.", "One dog"))
    assert second.labels == ("near-domain",)


def test_the_test_split_has_images_without_captions_and_may_have_no_domains(tmp_path):
    images = [image(0, domain=None), image(1)]
    del images[0]["domain"]
    first, second = read_nocaps(written(tmp_path, images, name="nocaps_test_image_info.json"))
    assert (first.reason, first.texts, first.labels) == ("", (), ())
    assert (second.reason, second.texts, second.labels) == ("", (), ("near-domain",))


def test_an_empty_list_of_annotations_is_none_rather_than_images_to_reject(tmp_path):
    found = list(read_nocaps(written(tmp_path, [image(0), image(1)], [])))
    assert [(e.id, e.reason, e.texts) for e in found] == [("0", "", ()), ("1", "", ())]


def test_every_bad_entry_is_one_reject(tmp_path):
    images = [image(0), image(1), image(2, domain="far"), image(1), {"id": 4}, 7, image(5)]
    annotations = [
        annotation(0, 0, "A cat"), annotation(9, 1, "Of no image"), {"image_id": 0}, "x",
        annotation(5, 4, " "), annotation(2, 5, "A car"), annotation(1, 6, "A dog"),
    ]  # fmt: skip
    found = list(read_nocaps(written(tmp_path, images, annotations)))
    assert [e.id for e in found if not e.reason] == ["0", "1"]
    assert {e.id: e.reason for e in found if e.reason} == {
        "2": "unknown_label", "1+2": "repeated_id", "entry-4": "malformed_entry",
        "entry-5": "malformed_entry", "5": "empty_text", "annotation-1": "malformed_entry",
        "annotation-2": "malformed_entry", "annotation-3": "malformed_entry",
    }  # fmt: skip
    assert all(e.detail.startswith("nocaps_val_4500_captions.json: ") for e in found if e.reason)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"annotations": []}, "not a file of NoCaps .no list images"),
        ({"images": [], "annotations": {}}, "not a file of NoCaps .no list annotations"),
        ([], "not a file of NoCaps .no object"),
    ],
)
def test_a_file_of_another_format_is_refused_by_its_name(tmp_path, content, words):
    path = tmp_path / "nocaps.json"
    path.write_text(json.dumps(content))
    with pytest.raises(AnnotationError, match=rf"nocaps\.json: {words}"):
        list(read_nocaps(path))


def test_a_file_without_a_readable_entry_is_refused(tmp_path):
    with pytest.raises(ListError, match="no readable entry"):
        list(read_nocaps(written(tmp_path, [{}, 1], [2])))
