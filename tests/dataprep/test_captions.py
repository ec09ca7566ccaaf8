"""Captions: words by script, which of several captions are used, and which are the same."""

import pyarrow as pa
import pytest

from dataprep.captions import caption_faults, caption_key, caption_number, count_words


@pytest.mark.parametrize(
    ("caption", "num_words"),
    [
        ("a dog", 2),
        ("ghost", 1),
        ("", 0),
        ("一只棕色的狗在草地上奔跑", 6),
        ("一只 iPhone。", 2),
        ("ネコが座っている", 4),
        ("สุนัขวิ่งบนหญ้า", 4),
        ("개가 풀밭을 달린다", 3),
        ("собака бежит", 2),
    ],
)
def test_words_are_counted_by_script(caption, num_words):
    assert count_words(pa.chunked_array([[caption]])).tolist() == [num_words]


@pytest.mark.parametrize(
    ("first", "second", "are_same"),
    [
        ("A dog.", "a  dog", True),
        ("Ｄｏｇ", "dog", True),  # full-width letters
        ("STRASSE", "straße", True),
        ("狗在草地上。", "狗在草地上", True),
        ("a dog", "a dig", False),
        ("a dog, a cat", "a dog a cat", False),
        ("1.5", "15", False),
    ],
)
def test_captions_that_differ_in_case_spaces_width_or_a_last_dot_are_the_same(
    first, second, are_same
):
    assert (caption_key(first) == caption_key(second)) == are_same
    assert (caption_number(first) == caption_number(second)) == are_same


def test_a_caption_without_words_has_no_number():
    assert caption_number(" . ") == 0 != caption_number("a")


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_each_caption_has_the_first_fault_that_holds(kind):
    captions = pa.chunked_array(
        [
            [["one two", "  ", "one", "ONE TWO.", "one two three four"], None],
            [[], ["one", "one"], ["three words here"]],
        ],
        pa.list_(kind),
    )
    assert caption_faults(captions, 2, 3) == [
        [None, "caption_empty", "caption_too_short", "caption_repeated", "caption_too_long"],
        [],
        [],
        ["caption_too_short", "caption_too_short"],
        [None],
    ]
