"""Accuracy of answers against the results of the authors' program, and against a restatement.

``official_vqa_accuracies.json`` holds drawn predictions, ten answers each, and what the program
``vqaEval.py`` of the data set's authors computed for them.
"""

import json
import random
import re
import string
from itertools import combinations
from pathlib import Path

import pytest

from model.metrics.vqa import accuracy, normalized

OFFICIAL = json.loads(Path(__file__).with_name("official_vqa_accuracies.json").read_text())


def test_the_authors_program_computes_the_same():
    assert len({value for *_, value in OFFICIAL}) > 3
    for prediction, answers, expected in OFFICIAL:
        assert accuracy(prediction, answers) == pytest.approx(expected, abs=1e-7), prediction


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Two dogs", "2 dogs"),
        ("none", "0"),
        ("The dog, a cat", "dog cat"),
        ("black-white", "black white"),
        ("black - white", "black white"),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("5.", "5"),
        ("u.s.", "us"),
        ("dont", "don't"),
        ("yall'dve", "yall'dve"),
        ("y'alld've", "y'all'd've"),
        ("somebody'd", "somebodyd"),
        ("weve", "we've"),
        ("were", "were"),
        ("tennis\nball\t", "tennis ball"),
        ("", ""),
    ],
)
def test_an_answer_is_normalized(answer, expected):
    assert normalized(answer) == expected


def restated(prediction: str, answers: list[str]) -> float:
    """Accuracy by its description: the mean over all sets of nine annotators.

    For answers of letters, digits, spaces, hyphens, question marks and periods at an end.
    """

    def plain(text: str) -> str:
        text = re.sub(r"\.(?!\d)", "", text)
        for mark in "-?":
            is_apart = re.search(rf"\s\{mark}|\{mark}\s", text)
            text = text.replace(mark, "" if is_apart else " ")
        return text

    digits = dict(zip(["zero", "one", "two", "three"], "0123", strict=True))
    words = [digits.get(word, word) for word in plain(prediction.lower()).split()]
    found = " ".join(word for word in words if word not in ("a", "an", "the"))
    if len(set(answers)) > 1:
        answers = [plain(answer) for answer in answers]
    sets = list(combinations(answers, len(answers) - 1))
    return sum(min(1, nine.count(found) / 3) for nine in sets) / len(sets)


def test_five_thousand_drawn_cases_equal_the_description():
    draw = random.Random(0)
    values = set()
    for _ in range(5000):
        pool = [drawn_answer(draw) for _ in range(draw.choice([1, 2, 4]))]
        answers = [draw.choice(pool) for _ in range(10)]
        prediction = draw.choice([*pool, drawn_answer(draw)])
        expected = restated(prediction, answers)
        assert accuracy(prediction, answers) == pytest.approx(expected), (prediction, answers)
        values.add(round(expected, 3))
    assert values >= {0.0, 0.3, 0.6, 0.9, 1.0}


def drawn_answer(draw: random.Random) -> str:
    words = draw.choices(["a", "the", "one", "two", "dog", "cat", *string.digits], k=2)
    return draw.choice(["{}", "{}", "{} {}", "{}-{}", "{}?", "{} ? {}", "{}."]).format(*words)


def test_a_question_without_answers_is_refused():
    with pytest.raises(ValueError, match="no answers"):
        accuracy("yes", [])
