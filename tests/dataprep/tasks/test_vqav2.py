"""VQAv2: questions joined with their annotations, and the draw of the images of ``dev``."""

import json
import random

import pytest

from dataprep.sources.annotations import AnnotationError
from dataprep.sources.lines import ListError
from dataprep.tasks import vqav2
from dataprep.tasks.vqav2 import QuestionFiles, read_vqav2
from tests.dataprep.tasks.vqa_files import (
    annotation,
    question,
    write_annotations,
    write_questions,
)

TEN = ("net", "net", "net", "netting", "net", "net", "mesh", "net", "Net", "net")


def made(folder, split, pairs):
    """Write the files of (question, annotation) pairs; either may be None."""
    return QuestionFiles(
        write_questions(folder, split, [q for q, _ in pairs if q is not None]),
        write_annotations(folder, split, [a for _, a in pairs if a is not None]),
    )


@pytest.fixture
def splits(tmp_path):
    """Two questions on each of 30 training and 20 validation images."""

    def of(split, ids):
        pairs = [
            (question(i, n, f"What is {n}?"), annotation(i, n, *TEN)) for i in ids for n in (0, 1)
        ]
        return made(tmp_path, split, pairs)

    return of("train2014", range(100, 130)), of("val2014", range(500, 520))


def test_a_question_has_its_image_and_the_answers_as_annotated(tmp_path):
    asked = question(458752, 0, " What is  this\nphoto taken through? ")
    files = made(tmp_path, "train2014", [(asked, annotation(458752, 0, *TEN))])
    (example,) = read_vqav2([files])
    assert example.id == "458752000"
    assert example.images == ("COCO_train2014_000000458752.jpg",)
    assert example.texts == ("What is this photo taken through?",)
    assert example.labels == TEN and example.main_label == "net" and not example.reason


def test_the_images_of_test_dev_are_those_of_test(tmp_path):
    path = write_questions(tmp_path, "test-dev2015", [question(1, 0, "Is it?")])
    (example,) = read_vqav2([QuestionFiles(path, None)])
    assert example.images == ("COCO_test2015_000000000001.jpg",)
    assert example.labels == () and not example.reason


@pytest.mark.parametrize("order", ["same", "reversed", "shuffled"])
def test_annotations_are_joined_in_whatever_order_they_stand(tmp_path, order):
    pairs = [(question(i, 0, f"Which {i}?"), annotation(i, 0, str(i))) for i in range(1, 40)]
    questions = [q for q, _ in pairs]
    annotations = [a for _, a in pairs]
    if order == "reversed":
        annotations.reverse()
    elif order == "shuffled":
        random.Random(0).shuffle(annotations)
    files = QuestionFiles(
        write_questions(tmp_path, "val2014", questions),
        write_annotations(tmp_path, "val2014", annotations),
    )
    found = list(read_vqav2([files]))
    assert [example.id for example in found] == [f"{i}000" for i in range(1, 40)]
    assert [example.labels for example in found] == [(str(i),) for i in range(1, 40)]


def test_equal_orders_are_joined_with_one_annotation_in_memory(tmp_path, monkeypatch):
    held = []
    hold = vqav2._AnswersByQuestion._hold

    def counting(self, *entry):
        hold(self, *entry)
        held.append(len(self._held))

    monkeypatch.setattr(vqav2._AnswersByQuestion, "_hold", counting)
    pairs = [(question(i, 0, "Which?"), annotation(i, 0, "a")) for i in range(1, 40)]
    assert len(list(read_vqav2([made(tmp_path, "val2014", pairs)]))) == 39
    assert max(held) == 1


def test_every_bad_question_is_one_reject_and_the_others_are_whole(tmp_path):
    good = [(question(i, 0, "Is it?"), annotation(i, 0, "yes", "no")) for i in (1, 2)]
    bad_answer = annotation(7, 0, "yes")
    bad_answer["answers"] = [{"answer": 7}]
    cases = {
        "entry-2": ((7, None), "malformed_entry"),
        "3000": ((question(3, 0, "  "), annotation(3, 0, "yes")), "empty_text"),
        "4000": ((question(4, 0, "Is it?"), annotation(4, 0)), "no_labels"),
        "5000": ((question(5, 0, "Is it?"), None), "no_labels"),
        "entry-6": (({"question_id": 6, "question": "Is it?"}, None), "malformed_entry"),
        "7000": ((question(7, 0, "Is it?"), bad_answer), "malformed_entry"),
        "1000+2": ((question(1, 0, "Is it again?"), None), "repeated_id"),
        "annotation-8000": ((None, annotation(8, 0, "yes")), "malformed_entry"),
    }
    found = list(
        read_vqav2([made(tmp_path, "train2014", [*good, *(pair for pair, _ in cases.values())])])
    )
    assert {e.id: e.reason for e in found if e.reason} == {
        id_: reason for id_, (_, reason) in cases.items()
    }
    assert [e.id for e in found if not e.reason] == ["1000", "2000"]
    assert all("2014_" in e.detail for e in found if e.reason), "each names its file"


def test_train_and_dev_are_all_questions_and_share_no_image(splits):
    def ids(part, **more):
        return [e.id for e in read_vqav2(splits, part, 5, **more)]

    train, dev = ids("train"), ids("dev")
    assert sorted(train + dev) == sorted(ids("all")) and len(set(train + dev)) == 100
    images = {id_[:3] for id_ in dev}
    assert len(images) == 5 and len(dev) == 10 and all(id_.startswith("5") for id_ in dev)
    assert ids("dev", seed=1) != dev
    only_val = [e.id for e in read_vqav2(splits[1:], "dev", 5)]
    assert only_val == dev, "the draw depends on nothing but the validation images"


def test_the_draw_does_not_depend_on_the_order_of_the_file(splits, tmp_path):
    content = json.loads(splits[1].questions.read_text())
    content["questions"].reverse()
    again = tmp_path / "again_val2014_questions.json"
    again.write_text(json.dumps(content))
    dev = {e.id for e in read_vqav2(splits, "dev", 5)}
    files = [splits[0], QuestionFiles(again, splits[1].annotations)]
    assert {e.id for e in read_vqav2(files, "dev", 5)} == dev


def test_an_id_of_two_files_is_a_reject_of_the_second(splits):
    found = list(read_vqav2([splits[0], splits[0]]))
    assert [e.reason for e in found] == [""] * 60 + ["repeated_id"] * 60
    assert len({e.id for e in found}) == 120


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"questions": []}, "no text data_subtype"),
        ({"data_subtype": "train2014", "annotations": []}, "no list questions"),
        ([], "no object"),
        ({"data_subtype": "val2014", "questions": [1, {"a": 2}]}, "no readable entry"),
    ],
)
def test_a_file_of_another_format_is_refused_by_its_name(tmp_path, content, words):
    path = tmp_path / "other.json"
    path.write_text(json.dumps(content))
    with pytest.raises((AnnotationError, ListError), match=rf"other\.json: .*{words}"):
        list(read_vqav2([QuestionFiles(path, None)]))


def test_annotations_of_another_split_are_refused(splits):
    crossed = QuestionFiles(splits[0].questions, splits[1].annotations)
    with pytest.raises(AnnotationError, match=r"val2014_annotations\.json: no annotation is of a"):
        list(read_vqav2([crossed]))


@pytest.mark.parametrize("part", ["dev", "train"])
def test_too_few_validation_images_are_named(splits, part):
    with pytest.raises(AnnotationError, match="questions of 20 validation images"):
        list(read_vqav2(splits, part, 20))
    with pytest.raises(AnnotationError, match="questions of 0 validation images"):
        list(read_vqav2(splits[:1], part, 5))
