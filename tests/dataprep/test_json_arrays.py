"""JSON arrays read element by element, against ``json.loads`` of the whole text."""

import io
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataprep.sources import json_arrays
from dataprep.sources.json_arrays import FormError, TooDeeplyNested, elements

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=9,
)


@st.composite
def texts(draw) -> str:
    """JSON in one of the layouts that programs write."""
    content = draw(st.lists(VALUES, max_size=5) | VALUES)
    if draw(st.booleans()):
        content = {"a": draw(VALUES), "images": content, "b": draw(VALUES)}
    return json.dumps(
        content, indent=draw(st.sampled_from([None, 1])), ensure_ascii=draw(st.booleans())
    )


def read(data: bytes, key: str | None, num_bytes: int) -> list:
    file = io.BytesIO(data)
    return list(elements(lambda _: file.read(num_bytes), key))


@given(
    text=texts(),
    cut=st.none() | st.integers(0, 30),
    num_bytes=st.integers(1, 9) | st.just(1 << 20),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32-le"]),
)
def test_elements_are_those_of_the_whole_text(text, cut, num_bytes, encoding):
    data = text[: None if cut is None else -1 - cut].encode(encoding, "surrogatepass")
    try:
        whole = json.loads(data)
    except ValueError:
        whole = ValueError
    for key in (None, "images"):
        expected = whole
        if key and whole is not ValueError:
            expected = whole.get(key) if isinstance(whole, dict) else None
        if expected is ValueError:
            with pytest.raises(ValueError):  # any
                read(data, key, num_bytes)
        elif not isinstance(expected, list):
            with pytest.raises(FormError):
                read(data, key, num_bytes)
        else:
            assert json.dumps(read(data, key, num_bytes)) == json.dumps(expected)


@pytest.mark.parametrize(
    "text",
    ["", " ", "[", "[1", "[1,", "[1,]", "[1 2]", "[1]2", "[1]]", '{"images"', '{"images":[1]',
     '{"images":[1],}', "{1:[]}", '{"images":[1]}}', "nothing", "[01]", '["', "\ufeff"],
)  # fmt: skip
def test_what_is_not_json_is_said_to_be_so(text):
    for key in (None, "images"):
        with pytest.raises(ValueError) as raised:  # not FormError
            read(text.encode(), key, 3)
        assert not isinstance(raised.value, FormError) or text[:1] in "[{"


@pytest.mark.parametrize(
    "broken", ['{"a" 1}', "{'a': 1}", '{"a": 1', '{"a": tru}', "nul", '"\n"', ""]
)
@pytest.mark.parametrize("num_bytes", [3, 1 << 20])
def test_an_error_is_located_in_the_whole_text(monkeypatch, broken, num_bytes):
    monkeypatch.setattr(json_arrays, "_READ_BYTES", num_bytes)
    text = "[" + '{"a": "é"},\n' * 500 + f"{broken}, 2]"
    with pytest.raises(json.JSONDecodeError) as by_json:
        json.loads(text)
    with pytest.raises(ValueError, match=rf" at character {by_json.value.pos}$"):
        read(text.encode(), None, num_bytes)


def test_a_value_without_end_is_given_up(monkeypatch):
    monkeypatch.setattr(json_arrays, "MAX_ELEMENT_CHARS", 1 << 20)
    blocks = iter([b'["', *[b"a" * (1 << 20)] * 50])
    with pytest.raises(ValueError, match="Unterminated"):
        list(elements(lambda _: next(blocks)))
    assert len(list(blocks)) > 40


def test_memory_does_not_grow_with_the_array():
    element = json.dumps({"regions": [{"phrase": "a dog on the street"}] * 50}).encode()
    blocks = iter([b"[" + element, *[b"," + element] * 30_000, b"]"])
    tracemalloc.start()
    number = sum(1 for _ in elements(lambda _: next(blocks, b"")))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert number == 30_001
    assert peak < 20 << 20


@pytest.mark.parametrize(
    "odd",
    [
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a": "]}\\"", "b": ' + b'{"c": [' * 50_000 + b"]}" * 50_000 + b"}",
    ],
    ids=["lists", "objects"],
)
@pytest.mark.parametrize("block", [1000, 1 << 20])
def test_a_value_that_is_too_deep_is_one_element(odd, block):
    data = io.BytesIO(b'{"other": ' + odd + b', "images": [1, ' + odd + b", 2]}")
    first, second, third = elements(lambda _: data.read(block), "images")
    assert (first, third) == (1, 2) and isinstance(second, TooDeeplyNested)


def test_an_integer_that_is_too_long_does_not_refuse_the_file():
    data = b'[{"id": 1}, {"id": ' + b"9" * 5000 + b', "x": 2}, {"id": 3}]'
    assert [e["id"] for e in elements(io.BytesIO(data).read)] == [1, float("inf"), 3]


def test_a_list_that_stands_twice_is_refused():
    data = b'{"images": [1], "images": [2]}'
    with pytest.raises(FormError, match="several lists images"):
        list(elements(io.BytesIO(data).read, "images"))
