"""Own annotations of every task, as CSV, TSV and JSON lines."""

import bz2
import csv
import io
import json

import pytest

from dataprep.sources.lines import ListError
from dataprep.tasks import own_files
from dataprep.tasks.own_files import OwnFile

ROWS = [
    {"image": "a.jpg", "text": 'What "color", really?', "label": ["red", "dark red"]},
    {"image": "sub/b.jpg", "text": "How many?", "label": ["2"]},
]


def as_jsonl(rows):
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def as_csv(rows):
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow(["|".join(v) if isinstance(v, list) else v for v in row.values()])
    return out.getvalue()


def as_tsv(rows):
    lines = [list(rows[0])]
    lines += [["|".join(v) if isinstance(v, list) else str(v) for v in r.values()] for r in rows]
    return "".join("\t".join(line) + "\n" for line in lines)


FORMS = {"own.jsonl": as_jsonl, "own.csv": as_csv, "own.tsv": as_tsv}
COLUMNS = ("image", "text", "label")


@pytest.fixture(params=FORMS)
def write(request, tmp_path):
    def written(rows):
        path = tmp_path / request.param
        path.write_text(FORMS[request.param](rows))
        return OwnFile(path, list(rows[0]))

    return written


def test_questions_have_several_answers_and_the_most_frequent_one(write):
    rows = [*ROWS, {"image": "c.jpg", "text": "Is it?", "label": ["no", "yes", "yes"]}]
    found = list(own_files.read_questions(write(rows), *COLUMNS))
    assert [e.labels for e in found] == [("red", "dark red"), ("2",), ("no", "yes", "yes")]
    assert [e.main_label for e in found] == ["red", "2", "yes"]
    assert [e.texts for e in found] == [('What "color", really?',), ("How many?",), ("Is it?",)]
    assert [e.images for e in found] == [("a.jpg",), ("sub/b.jpg",), ("c.jpg",)]
    assert len({e.id for e in found}) == 3 and not any(e.reason for e in found)


def test_labels_may_be_several_and_each_counts_once(write):
    rows = [{**ROWS[0], "label": ["red", "round", "red"]}, ROWS[1]]
    found = list(own_files.read_labels(write(rows), "image", "label"))
    assert [e.labels for e in found] == [("red", "round"), ("2",)]
    assert [e.texts for e in found] == [(), ()]


def test_files_without_labels_are_read_for_prediction(write):
    rows = [{"image": "a.jpg", "text": "Why?"}]
    (question,) = own_files.read_questions(write(rows), "image", "text", None)
    (image,) = own_files.read_labels(write(rows), "image", None)
    (sentence,) = own_files.read_sentences(write(rows), ["text"], None)
    for example in (question, image, sentence):
        assert example.labels == () and not example.reason


@pytest.mark.parametrize(
    ("written", "label"),
    [("True", "True"), ("true", "True"), ("1", "True"), ("FALSE", "False"), ("0", "False")],
)
def test_labels_of_two_images_become_true_or_false(write, written, label):
    rows = [{"image1": "a.jpg", "image2": "b.jpg", "sentence": "Two dogs.", "label": written}]
    (found,) = own_files.read_image_pairs(write(rows), ["image1", "image2"], "sentence", "label")
    assert found.labels == (label,) and found.images == ("a.jpg", "b.jpg")


@pytest.mark.parametrize(("value", "label"), [(True, "True"), (0, "False"), (1, "True")])
def test_json_truth_is_a_label_of_two_images(tmp_path, value, label):
    path = tmp_path / "own.jsonl"
    row = {"image1": "a.jpg", "image2": "b.jpg", "sentence": "Two dogs.", "label": value}
    path.write_text(json.dumps(row))
    (found,) = own_files.read_image_pairs(
        OwnFile(path, list(row)), ["image1", "image2"], "sentence", "label"
    )
    assert found.labels == (label,)


def test_rows_of_one_image_are_one_example_with_all_captions(write):
    rows = [
        {"image": "a.jpg", "caption": "A dog."},
        {"image": "b.jpg", "caption": "A cat | or not."},
        {"image": "a.jpg", "caption": "The same, again."},
        {"image": "a.jpg", "caption": " "},
    ]
    first, second, empty = own_files.read_captions(write(rows), "image", "caption")
    assert (first.id, first.texts) == ("a.jpg", ("A dog.", "The same, again."))
    assert (second.id, second.texts) == ("b.jpg", ("A cat | or not.",))
    assert empty.reason == "empty_text"


def test_json_may_list_the_captions_of_an_image(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text(as_jsonl([{"image": "a.jpg", "caption": ["A dog.", None, "", "A hound."]}]))
    (found,) = own_files.read_captions(OwnFile(path, ["image", "caption"]), "image", "caption")
    assert found.texts == ("A dog.", "A hound.")


def test_a_caption_without_a_visible_character_is_an_empty_one(tmp_path):
    """Each row without a caption is one reject of its own, and takes no good caption with it."""
    path = tmp_path / "own.jsonl"
    captions = [["One.", "\u200b"], "\u200b", "\ufeff", "&#8203;", "Two."]
    path.write_text(as_jsonl([{"image": "a.jpg", "caption": caption} for caption in captions]))
    found = list(own_files.read_captions(OwnFile(path, ["image", "caption"]), "image", "caption"))
    assert [(e.id, e.texts, e.reason) for e in found] == [
        ("a.jpg", ("One.", "Two."), ""),
        *((f"{line:09d}", (), "empty_text") for line in (2, 3, 4)),
    ]


def test_sentences_may_have_numbers_for_labels(tmp_path):
    path = tmp_path / "own.jsonl"
    rows = [{"a": "One.", "b": "Two.", "score": 2.5}, {"a": "x", "b": "y", "score": 3}]
    path.write_text(as_jsonl(rows))
    found = list(own_files.read_sentences(OwnFile(path, ["a", "b", "score"]), ["a", "b"], "score"))
    assert [(e.texts, e.labels) for e in found] == [
        (("One.", "Two."), ("2.5",)),
        (("x", "y"), ("3",)),
    ]


BAD = {
    "no image": ({"image": " ", "text": "a", "label": ["b"]}, "malformed_entry"),
    "no question": ({"image": "a.jpg", "text": " ", "label": ["b"]}, "empty_text"),
    "no answer": ({"image": "a.jpg", "text": "a", "label": [" ", ""]}, "no_labels"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_row_is_one_reject_beside_good_ones(write, case):
    row, reason = BAD[case]
    first, bad, last = own_files.read_questions(write([ROWS[0], row, ROWS[1]]), *COLUMNS)
    assert bad.reason == reason and "own." in bad.detail
    assert not first.reason and not last.reason


@pytest.mark.parametrize(
    "line",
    ["{", "[]", "", '{"image": 3, "text": "a", "label": "b"}', '{"image": "a.jpg", "label": "b"}',
     '{"image": "a.jpg", "text": "a", "label": [{"b": 1}]}'],
)  # fmt: skip
def test_a_bad_json_line_is_one_reject(tmp_path, line):
    path = tmp_path / "own.jsonl"
    path.write_text(f"{as_jsonl(ROWS)}{line}\n")
    *good, bad = own_files.read_questions(OwnFile(path, COLUMNS), *COLUMNS)
    assert bad.reason == "malformed_entry" and "own.jsonl:3" in bad.detail
    assert [e.reason for e in good] == ["", ""]


def test_a_label_that_is_no_truth_is_a_reject(write):
    rows = [{"a": "1", "b": "2", "text": "x", "label": label} for label in ("true", "both", "")]
    found = own_files.read_image_pairs(write(rows), ["a", "b"], "text", "label")
    assert [e.reason for e in found] == ["", "unknown_label", "no_labels"]


def test_a_compressed_file_is_read(tmp_path):
    path = tmp_path / "own.csv.bz2"
    path.write_bytes(bz2.compress(as_csv(ROWS).encode()))
    assert len(list(own_files.read_labels(OwnFile(path, COLUMNS), "image", "label"))) == 2


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("own.csv", "file,label\na.jpg,b\n", "no column image; it has file, label"),
        ("own.jsonl", '{"file": "a.jpg", "label": "b"}\n', "no line at its beginning has image"),
        ("own.jsonl", '[{"image": "a.jpg", "label": "b"}]', "a JSON array"),
        ("own.txt", "image,label\n", "not named .jsonl, .csv or .tsv"),
        ("own.csv", "image,label\na,b,c\nd\n", "no readable entry; own.csv:2: 3 fields"),
    ],
)
def test_a_file_of_another_format_is_refused_by_its_name(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ListError) as caught:
        list(own_files.read_labels(OwnFile(path, ["image", "label"]), "image", "label"))
    assert str(path) in str(caught.value) and words in str(caught.value)


def test_images_without_a_column_of_captions_are_examples_without_texts(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("image\na.jpg\nb.jpg\na.jpg\n")
    first, second = own_files.read_captions(OwnFile(path, ["image"]), "image", None)
    assert (first.images, first.texts, first.reason) == (("a.jpg",), (), "")
    assert second.id == "b.jpg"
