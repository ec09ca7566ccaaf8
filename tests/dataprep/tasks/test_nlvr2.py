"""NLVR2: sentences of two images, by the published JSON lines."""

import json

import pytest

from dataprep.sources.lines import ListError
from dataprep.tasks.nlvr2 import read_nlvr2

PUBLISHED = {
    "validation": {"1": "True"},
    "sentence": "An image shows one leather pencil case, displayed open with writing implements.",
    "left_url": "https://example.org/a.jpg",
    "writer": "24",
    "label": "True",
    "query": "pencil cases14",
    "identifier": "train-10171-0-0",
    "synset": "pencil box",
    "right_url": "https://example.org/b.jpg",
    "directory": 55,
    "extra_validations": [],
}


def found(tmp_path, *rows):
    path = tmp_path / "train.json"
    path.write_text("".join(f"{r if isinstance(r, str) else json.dumps(r)}\n" for r in rows))
    return list(read_nlvr2(path))


def test_a_training_example_names_its_images_below_its_directory(tmp_path):
    (example,) = found(tmp_path, PUBLISHED)
    assert example.id == "train-10171-0-0"
    assert example.images == (
        "train/55/train-10171-0-img0.png",
        "train/55/train-10171-0-img1.png",
    )
    assert example.texts == (PUBLISHED["sentence"],)
    assert example.labels == ("True",) and not example.reason


@pytest.mark.parametrize("split", ["dev", "test1", "test2"])
def test_other_splits_have_no_directory(tmp_path, split):
    row = {"identifier": f"{split}-850-1-2", "sentence": "Two dogs.", "label": "False"}
    (example,) = found(tmp_path, row)
    assert example.images == (f"{split}/{split}-850-1-img0.png", f"{split}/{split}-850-1-img1.png")
    assert example.labels == ("False",)


def test_a_split_without_labels_is_read(tmp_path):
    (example,) = found(tmp_path, {"identifier": "test2-1-2-3", "sentence": "Two dogs."})
    assert example.labels == () and not example.reason


def test_every_bad_line_is_one_reject(tmp_path):
    cases = {
        "line-2": ("{", "malformed_entry"),
        "line-3": ("[]", "malformed_entry"),
        "line-4": ({**PUBLISHED, "sentence": None}, "malformed_entry"),
        "dev-1-2-0": ({**PUBLISHED, "identifier": "dev-1-2-0", "sentence": " "}, "empty_text"),
        "val-1-2-3": ({**PUBLISHED, "identifier": "val-1-2-3"}, "unknown_split"),
        "train-1-2": ({**PUBLISHED, "identifier": "train-1-2"}, "malformed_entry"),
        "train-1-2-4": (
            {**PUBLISHED, "identifier": "train-1-2-4", "label": "Maybe"},
            "unknown_label",
        ),
        "train-1-2-5": (
            {**PUBLISHED, "identifier": "train-1-2-5", "directory": []},
            "malformed_entry",
        ),
        "train-10171-0-0+2": (PUBLISHED, "repeated_id"),
    }
    good, *others = found(tmp_path, PUBLISHED, *(row for row, _ in cases.values()))
    assert not good.reason
    assert {e.id: e.reason for e in others} == {id_: reason for id_, (_, reason) in cases.items()}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('[{"identifier": "dev-1-2-3", "sentence": "a"}]\n', "a JSON array"),
        ('{"url": "a", "caption": "b"}\n', "has identifier, sentence"),
        ('{"identifier": 3, "sentence": "a"}\n', "no readable entry"),
    ],
)
def test_a_file_of_another_format_is_refused_by_its_name(tmp_path, content, words):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ListError, match=rf"other\.json: .*{words}"):
        list(read_nlvr2(path))
