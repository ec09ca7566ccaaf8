"""Answers of VQA: the list, the targets and the score against the released code and the metric."""

import json
from collections import Counter

import numpy as np
import pytest

from model.metrics.vqa import accuracy, agreement
from pipelines.finetune.answer_lists import read_answers
from tests.pipelines.finetune.examples import labelled, predictions, task_of

PUBLISHED_FIRST = ["net", "pitcher", "orange", "yes", "white", "skiing", "red", "frisbee"]


def official_score(occurrences: int) -> float:
    """``get_score`` of the authors' beit3/datasets.py."""
    return {0: 0.0, 1: 0.3, 2: 0.6, 3: 0.9}.get(occurrences, 1.0)


def test_the_target_of_an_answer_is_the_accuracy_it_gets_by_leaving_one_annotator_out():
    rng = np.random.default_rng(0)
    names = ["yes", "no", "2", "left of it"]
    task, numbers = task_of("vqa"), {"yes": 0, "no": 1, "2": 2, "left of it": 3}
    annotated = [rng.choice([*names, "blue"], 10, p=rng.dirichlet([0.5] * 5)) for _ in range(300)]
    targets = task.targets(labelled([some.tolist() for some in annotated]), numbers)
    assert targets.shape == (300, 4)
    for answers, row in zip(annotated, targets.tolist(), strict=True):
        for name, target in zip(names, row, strict=True):
            left_out = [np.delete(answers, i) for i in range(10)]
            expected = np.mean([min(1, (nine == name).sum() / 3) for nine in left_out])
            assert target == pytest.approx(expected)
            assert target == pytest.approx(official_score(int((answers == name).sum())))
            assert target == pytest.approx(accuracy(name, answers.tolist()))


@pytest.mark.parametrize("number", range(1, 13))
def test_target_and_score_agree_for_any_number_of_annotators(number):
    """An answer that all of them gave is right, a single annotator's too."""
    task = task_of("vqa")
    for given in range(number + 1):
        answers = ["yes"] * given + [f"other {i}" for i in range(number - given)]
        found = task.targets(labelled([answers]), {"yes": 0}).item()
        row = predictions([{"labels": ["yes"], "scores": [1.0]}])
        assert task.score(row, labelled([answers]))["accuracy"] == pytest.approx(found)
        assert found == pytest.approx(agreement(given, number))
    assert agreement(number, number) == 1 and agreement(0, number) == 0


def test_the_list_has_normalized_main_answers_with_nine_occurrences_in_order_of_the_first():
    """``make_dataset_index`` of the authors keeps the empty answer, as their published list."""
    rng = np.random.default_rng(1)
    words = ["Net.", "net", "The red", "red", "a", "two", "2", "dont", "rare", "yes"]
    train, dev = (rng.choice(words, size, p=rng.dirichlet([2.0] * 10)) for size in (60, 25))
    normal = {"Net.": "net", "The red": "red", "a": "", "two": "2", "dont": "don't"}
    counter = Counter(normal.get(word, word) for word in (*train, *dev))
    expected = [name for name, count in counter.items() if count >= 9]
    assert len(expected) > 3
    splits = {
        "train": labelled([["?"] * 10] * 60, train.tolist()),
        "dev": labelled([["?"] * 10] * 25, dev.tolist()),
    }
    assert task_of("vqa", min_occurrences=9).label_names(splits) == expected
    always = {"train": labelled([["?"]] * 9, ["a"] * 9)}
    assert task_of("vqa", min_occurrences=9).label_names(always) == [""]
    with pytest.raises(ValueError, match="no answer occurs 10 times"):
        task_of("vqa", min_occurrences=10).label_names(always)


def test_without_a_main_answer_the_most_frequent_one_counts():
    splits = {"train": labelled([["no", "Yes", "Yes"], ["no"], []])}
    assert task_of("vqa").label_names(splits) == ["yes", "no"]


def test_a_question_is_trained_on_if_an_answer_is_in_the_list_as_it_stands():
    rows = labelled([["yes", "no"], ["Yes"], ["blue"], []])
    assert list(task_of("vqa").is_used(rows, {"yes": 0})) == [True, False, False, False]
    assert task_of("vqa").targets(rows, {"yes": 0})[1].item() == 0  # not normalized


def test_the_score_is_the_official_accuracy_of_the_best_answer():
    truth = [["yes"] * 10, ["two"] * 3 + ["3"] * 7, ["Red."] * 2 + ["red"] * 8, []]
    best = [["Yes", "no"], ["2"], ["the red"], ["yes"]]
    rows = predictions([{"labels": some, "scores": [1.0] * len(some)} for some in best])
    found = task_of("vqa").score(rows, labelled(truth))
    expected = [accuracy(b[0], t) for b, t in zip(best, truth, strict=True) if t]
    assert found["accuracy"] == pytest.approx(np.mean(expected))
    guesses = [np.mean([accuracy(guess, t) for t in truth if t]) for guess in ("yes", "3", "red")]
    assert found["chance/accuracy"] == pytest.approx(guesses[0])


def test_the_submission_is_a_list_of_question_ids_and_answers():
    rows = predictions([{"example_id": "393225000", "labels": ["net", "red"]}, {"labels": ["2"]}])
    assert json.loads(task_of("vqa").submission(rows)) == [
        {"question_id": 393225000, "answer": "net"},
        {"question_id": 1, "answer": "2"},
    ]


def test_a_published_list_of_answers_is_read(tmp_path):
    """As the authors write it, with the empty answer."""
    path, names = tmp_path / "answer2label.txt", [*PUBLISHED_FIRST, "", "i don't know", "café"]
    with path.open("w", encoding="utf-8") as writer:
        for number, name in enumerate(names):
            writer.write("%s\n" % json.dumps({"answer": name, "label": number}))  # noqa: UP031
    assert read_answers(str(path)) == names
    plain = tmp_path / "answers.txt"
    plain.write_text("net\n\n red and white \r\n", encoding="utf-8")
    assert read_answers(str(plain)) == ["net", "red and white"]
    assert task_of("vqa", answers=str(path)).label_names({}) == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no labels"),
        ("net\nred\nnet\n", "'net' stands in several lines"),
        ('{"answer": "net", "label": 1}\n', "line 1: label 1 of 'net', expected 0"),
        ('{"answer": 3, "label": 0}\n', "line 1: label 0 of 3"),
        ('{"answer": "net"}\n', "line 1: not an answer and its number"),
        ('net\n{"answer": "net", "lab\n', "line 2: not an answer and its number"),
    ],
)
def test_a_list_of_answers_that_cannot_be_used_is_refused(tmp_path, text, message):
    path = tmp_path / "list.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_answers(str(path))
