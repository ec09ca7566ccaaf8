"""Words in images: other scripts than Latin, and places at the border."""

import numpy as np
import pytest

from pipelines.report.detected import Outline, with_objects
from pipelines.report.drawn_words import Words, with_words

BLACK = np.zeros((40, 200, 3), np.uint8)
GREEN = (0, 255, 0)


def drawn(text: str, place: tuple[int, int] = (10, 30), **changes: bool) -> np.ndarray:
    return with_words(BLACK, [Words(text, place, GREEN, **changes)], 12)


@pytest.mark.parametrize("text", ["häuser", "дом", "σπίτι", "łódź"])
def test_names_of_other_scripts_are_not_question_marks(text):
    """Each letter is one of its own: neither a question mark nor the sign of a missing letter."""
    for other in ("?", "\U000f0000"):
        for i in range(len(text)):
            changed = text[:i] + other + text[i + 1 :]
            assert (drawn(text) != drawn(changed)).any()
    assert drawn(text).any(axis=2).sum() > 20 and not BLACK.any()


def test_words_stand_where_they_are_asked_for_and_inside_of_the_left_border():
    rows, columns = np.nonzero(drawn("HHH").any(axis=2))
    assert 10 <= columns.min() <= 13 and rows.max() == 29
    rows, columns = np.nonzero(drawn("HHH", (100, 20), centered=True).any(axis=2))
    assert abs((columns.min() + columns.max()) / 2 - 100) <= 2
    assert abs((rows.min() + rows.max()) / 2 - 20) <= 2
    assert drawn("HHH", (2, 20), centered=True).any(axis=2).sum() > 20
    assert (drawn("a\nb") == drawn("a b")).all() and not drawn(" ").any()


def test_objects_with_the_names_of_other_scripts_are_drawn():
    image = np.full((80, 120, 3), 90, np.uint8)
    found = [
        with_objects(image, (120, 80), [Outline("x", [10, 30, 60, 40], "", words)])
        for words in ("ü", "ы", "?")
    ]
    assert all((one != other).any() for one in found for other in found if one is not other)
    assert all((one[40:] == found[0][40:]).all() for one in found)
