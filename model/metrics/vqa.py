"""The accuracy of visual question answering, as the data set's authors compute it.

A prediction is compared with ten annotators' answers: for each of the ten sets that leave one
annotator out, three equal answers are full accuracy, and the ten results are averaged
(visualqa.org/evaluation). Punctuation, number words, articles and contractions are unified first.
The published figures come from the authors' program, so its deviations from its own description
are followed, each with a comment.
"""

import re
from collections.abc import Sequence
from typing import Final

_NUMBERS: Final = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5",
    "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
_ARTICLES: Final = frozenset({"a", "an", "the"})
_PUNCTUATION: Final = ';/[]"{}()=+\\_-><@`,?!'
_FULL_AT: Final = 3
"Number of equal answers that is full accuracy."
_MAX_PERIODS: Final = 32
"The authors' program passes a flag where re.sub takes the largest number of replacements."
_PERIOD: Final = re.compile(r"(?!<=\d)\.(?!\d)")  # "(?!<=" is always true: "3." loses its period
_COMMA_IN_NUMBER: Final = re.compile(r"\d,\d")
_CONTRACTED: Final = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're
what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're
you've
"""
"Words that are restored where one apostrophe is missing."


def _without_one_apostrophe() -> dict[str, str]:
    restored = {
        word[:i] + word[i + 1 :]: word
        for word in _CONTRACTED.split()
        for i, letter in enumerate(word)
        if letter == "'"
    }
    # The authors' table has this one entry the other way round.
    return restored | {"somebody'd": "somebodyd"}


_RESTORED: Final = _without_one_apostrophe()


def normalized(answer: str) -> str:
    """Return an answer as the official accuracy compares it."""
    flat = answer.replace("\n", " ").replace("\t", " ").strip()
    words = [_NUMBERS.get(word, word) for word in without_punctuation(flat).lower().split()]
    return " ".join(_RESTORED.get(word, word) for word in words if word not in _ARTICLES)


def without_punctuation(answer: str) -> str:
    """Return an answer with its punctuation removed, or replaced by spaces within words."""
    has_number = _COMMA_IN_NUMBER.search(answer) is not None
    result = answer
    for mark in _PUNCTUATION:
        at_a_word_s_end = f"{mark} " in answer or f" {mark}" in answer
        result = result.replace(mark, "" if at_a_word_s_end or has_number else " ")
    return _PERIOD.sub("", result, count=_MAX_PERIODS)


def accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Return the accuracy in 0-1 of a prediction against the annotators' answers.

    Args:
        prediction: the predicted answer.
        answers: the annotators' answers, ten in VQAv2; see :func:`agreement` for fewer.

    Raises:
        ValueError: there are no answers.
    """
    if not answers:
        raise ValueError("a question has no answers to compare with; leave it out of the score")
    # Answers lose their punctuation only, and only where annotators differ.
    if len(set(answers)) > 1:
        answers = [without_punctuation(answer) for answer in answers]
    found = normalized(prediction)
    return agreement(sum(answer == found for answer in answers), len(answers))


def agreement(number: int, num_annotators: int) -> float:
    """Return the accuracy of an answer that ``number`` of the annotators gave.

    With fewer than four annotators no answer can reach full accuracy by the authors' rule; the
    accuracy is then the fraction of the annotators.
    """
    if num_annotators <= _FULL_AT:
        return number / num_annotators
    with_one_less = min(1.0, (number - 1) / _FULL_AT) * number
    with_all = min(1.0, number / _FULL_AT) * (num_annotators - number)
    return (with_one_less + with_all) / num_annotators
