"""A list of JSON lines whose keys are not those of the recipe is refused before it is read."""

import gzip
import json

import pytest

from dataprep.sources.json_keys import check_keys
from dataprep.sources.lines import ListError

PAIR = {"image": "http://a.test/1.jpg", "alt": "a cat", "é": 1}


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_the_missing_and_the_present_keys_are_named(tmp_path, pack):
    path = tmp_path / "list.jsonl"
    path.write_bytes(pack((json.dumps(PAIR) + "\n").encode() * 3))
    check_keys(path, ["image", "alt"])
    with pytest.raises(ListError, match=r"list\.jsonl: no line .* has url; it has image, alt, é"):
        check_keys(path, ["url", "alt"])
    with pytest.raises(ListError, match="has url, caption"):
        check_keys(path, ["url", "caption"])


@pytest.mark.parametrize(
    "lines",
    [
        ["not JSON", json.dumps({"other": 1}), json.dumps(PAIR)],  # single bad lines are rejects
        [json.dumps(PAIR), "{"],
        ["", "[1]", "3", "null"],  # nothing speaks for another key
        [],
        ["[" * 100_000],
    ],
)
def test_single_lines_without_the_keys_are_left_to_the_reader(tmp_path, lines):
    path = tmp_path / "list.jsonl"
    path.write_text("\n".join(lines))
    if lines and lines[0].startswith("["):
        with pytest.raises(ListError, match="a JSON array"):
            check_keys(path, ["image", "alt"])
    else:
        check_keys(path, ["image", "alt"])


def test_keys_that_never_stand_together_are_refused(tmp_path):
    path = tmp_path / "list.jsonl"
    path.write_text('{"a": 1}\n{"b": 1}\n')
    with pytest.raises(ListError, match="a together with b"):
        check_keys(path, ["a", "b"])


def test_only_the_beginning_of_a_file_is_judged(tmp_path):
    path = tmp_path / "list.jsonl"
    long = json.dumps({"image": "x", "alt": "a" * 2_000_000})
    path.write_text(long + "\n")
    check_keys(path, ["url"])  # no whole line is known


def test_a_json_array_is_refused(tmp_path):
    path = tmp_path / "list.json"
    path.write_text(json.dumps([PAIR, PAIR], indent=1))
    with pytest.raises(ListError, match=r"a JSON array, expected an object per line"):
        check_keys(path, ["image"])
