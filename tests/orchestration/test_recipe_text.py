"""Recipes are read as they are written: YAML 1.2, one line for each error, no repeated key.

The expected values of plain scalars are those of the YAML 1.2 core schema (section 10.3.2 of the
specification); PyYAML, which reads YAML 1.1, would give others.
"""

import copy
import json
import math
from pathlib import Path
from typing import Annotated

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from orchestration.errors import RecipeError
from orchestration.params import EXTERNAL_FILE, StageParams
from orchestration.recipe import Recipe, TrackingParams, load_recipe
from orchestration.recipe_text import dump_recipe, parse_recipe, parse_value


class Inner(StageParams):
    steps: int = 10
    lr: float = 0.1
    use_gpu: bool = False
    column: str = "url"
    splits: tuple[str, ...] = ()
    hosts: dict[str, str] = Field(default_factory=dict)
    file: Annotated[str | None, EXTERNAL_FILE] = None


class Toy(Recipe):
    inner: Inner = Inner()
    many: dict[str, Inner] = Field(default_factory=dict)


def load(tmp_path: Path, text: str | bytes, *overrides: str, **environment: str) -> Toy:
    path = tmp_path / "toy.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_recipe(Toy, path, overrides=overrides, environment=environment)


SCALARS = [
    ("null", None), ("~", None), ("true", True), ("False", False), ("0", 0), ("-19", -19),
    ("0o14", 12), ("0x3A", 58), ("+12e03", 12000.0), ("-2E+05", -200000.0), ("0.", 0.0),
    (".5", 0.5), ("-.inf", -math.inf), ("1e6", 1e6),
    ("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"), ("y", "y"), ("NO", "NO"),
    ("1:30", "1:30"), ("190:20:30.15", "190:20:30.15"), ("2001-12-14", "2001-12-14"),
    ("2001-12-14t21:59:43.10-05:00", "2001-12-14t21:59:43.10-05:00"), ("1_000", "1_000"),
    ("050", "050"), ("0b101", "0b101"), ("=", "="), ("1.2.3", "1.2.3"), ("12e", "12e"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), SCALARS)
def test_a_plain_scalar_is_what_yaml_1_2_says_in_a_file_and_on_the_command_line(text, expected):
    for found in (parse_recipe(f"a: {text}".encode(), "r")[0]["a"], parse_value(text)):
        assert found == expected
        assert isinstance(found, type(expected))


FIELDS = [
    ("steps", "1e6", 1_000_000),
    ("steps", "1_000", 1000),
    ("steps", "050", 50),
    ("steps", "0x10", 16),
    ("lr", "1e-3", 0.001),
    ("lr", "5", 5.0),
    ("lr", "1_000.5", 1000.5),
    ("use_gpu", "yes", True),
    ("use_gpu", "off", False),
    ("column", "no", "no"),
    ("column", "050", "050"),
    ("column", "1e6", "1e6"),
    ("column", "2017", "2017"),
    ("column", "0x1F", "0x1F"),
    ("column", ".inf", ".inf"),
    ("column", "12e4567", "12e4567"),
    ("column", "1:30", "1:30"),
    ("column", "2024-01-01", "2024-01-01"),
    ("splits", "[2014, 2017, no]", ("2014", "2017", "no")),
    ("hosts", "{a: 80, b: 1:2}", {"a": "80", "b": "1:2"}),
]


@pytest.mark.parametrize(("field", "text", "expected"), FIELDS)
def test_a_field_receives_what_was_meant(tmp_path, field, text, expected):
    assert getattr(load(tmp_path, f"name: t\ninner: {{{field}: {text}}}").inner, field) == expected
    assert getattr(load(tmp_path, "name: t", f"inner.{field}={text}").inner, field) == expected
    named = load(tmp_path, "name: t", **{f"BEIT3__inner__{field}": text})
    assert getattr(named.inner, field) == expected
    inner = load(tmp_path, f"name: t\nmany: {{one: {{{field}: {text}}}}}").many["one"]
    assert getattr(inner, field) == expected


REFUSED = [
    ("steps", "1:30", "1_000_000 or 1e6"),
    ("steps", "1,000", "1_000_000 or 1e6"),
    ("steps", "1.5", "fractional"),
    ("steps", "yes", "as in 1000000"),
    ("steps", "true", "as in 1000000"),
    ("steps", ".inf", "finite"),
    ("steps", "2024-01-01", "as in 1000000"),
    ("steps", "0b101", "as in 1000000"),
    ("lr", "true", "as in 0.5"),
    ("lr", ".nan", "finite"),
    ("lr", "1e999", "finite"),
    ("lr", "1:30", "as in 0.5"),
    ("use_gpu", "maybe", "true or false"),
    ("use_gpu", "2", "true or false"),
    ("column", "true", "in quotes"),
    ("column", "''", "leave the key out"),
    ("file", "''", "leave the key out"),
    ("file", "' '", "give a path"),
    ("file", "~nobody_of_this_name/x", "no home is known for ~nobody_of_this_name"),
]


@pytest.mark.parametrize(("field", "text", "words"), REFUSED)
def test_what_no_field_can_mean_is_refused_with_the_right_spelling(tmp_path, field, text, words):
    written = f"name: t\ninner:\n\n  {field}: {text}\n"
    with pytest.raises(RecipeError) as error:
        load(tmp_path, written)
    assert f"inner.{field}: " in str(error.value)
    assert words in str(error.value) and "(line 4)" in str(error.value)
    with pytest.raises(RecipeError) as error:
        load(tmp_path, "name: t", f"inner.{field}={text}")
    assert words in str(error.value) and f"(--set inner.{field})" in str(error.value)
    with pytest.raises(RecipeError) as error:
        load(tmp_path, "name: t", **{f"BEIT3__inner__{field}": text})
    assert f"(BEIT3__inner__{field})" in str(error.value)


LAUGHS = "a0: &a0 [x, x]\n" + "\n".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)
)
"A small file whose aliases stand for two billion values."
BAD_FILES = [
    ("name: t\nname: u", "toy.yaml:2: the key 'name' stands twice, first in line 1"),
    ("name: t\ninner:\n  steps: 1\n  'steps': 2", "toy.yaml:4: the key 'steps' stands twice"),
    ("name: t\nmany: {a: {steps: 1},\n a: {}}", "toy.yaml:3: the key 'a' stands twice"),
    ("name: t\nx: [{a: 1,\n a: 2}]", "toy.yaml:3: the key 'a' stands twice"),
    ("name: t\nmany:\n 1: {}\n 0x1: {}", "toy.yaml:4: the key '0x1' stands twice, first in line 3"),
    ("name: t\nmany: {1: 2, 1.0: 3}", "toy.yaml:2: the key '1.0' stands twice, first in line 2 as"),
    ("name: t\nmany: {true: {},\n True: {}}", "toy.yaml:3: the key 'True' stands twice"),
    ("name: t\n~: 1\nnull: 2", "toy.yaml:3: the key 'null' stands twice, first in line 2 as '~'"),
    ("name: t\nmany: {!env A: {}}", "toy.yaml:2: not valid YAML: could not determine"),
    ("", "toy.yaml: the recipe is empty"),
    ("# nothing\n---\n", "toy.yaml: the recipe is empty"),
    ("\n- name: t", "toy.yaml:2: a recipe must be a mapping of sections, as in `name: mine`"),
    ("just words", "toy.yaml:1: a recipe must be a mapping of sections"),
    ("name: t\ninner:\n\tsteps: 1", "toy.yaml:3: a tab stands where YAML takes only spaces"),
    ("name: t\ncolumn: a: b", "toy.yaml:2: not valid YAML: a second colon"),
    ("name: t\ninner: {steps: 1", "toy.yaml:2: not valid YAML"),
    ("name: t\n---\nname: u", "toy.yaml:2: not valid YAML: expected a single document"),
    ("name: !!python/name:os.system", "toy.yaml:1: not valid YAML: could not determine"),
    ("name: !env HOME", "toy.yaml:1: not valid YAML: could not determine"),
    ("name: !!int 050", "toy.yaml:1: '050' is not an integer"),
    ("name: !!bool ja", "toy.yaml:1: 'ja' is neither true nor false"),
    ("name: !!float x", "toy.yaml:1: 'x' is not a number"),
    (f"name: {'9' * 5000}", "toy.yaml:1: '9"),
    ("name: t\n? [a]\n: 1", "toy.yaml:2: not valid YAML"),
    ("name: &a [*a]", "toy.yaml: not valid YAML: nested too deeply, or within itself"),
    ("name: " + "[" * 5000, "toy.yaml: not valid YAML: nested too deeply"),
    ("name: t\n<<: 3", "toy.yaml:2: << takes a mapping"),
    ("name: t\nx: \x07", "toy.yaml:2: the character U+0007"),
    ("name: t\nx: é".encode("latin-1"), "toy.yaml:2: the byte 0xe9 is not UTF-8"),
    ("name: t".encode("utf-16"), "toy.yaml:1: the file is UTF-16"),
    ("name: t".encode("utf-16-le"), "toy.yaml:1: the file is UTF-16"),
    ("name: t".encode("utf-32"), "toy.yaml:1: the file is UTF-16"),
    ('name: t\nx: "\\ud83d"', "toy.yaml:2: '\\ud83d' has half of a character"),
    ('name: t\n"\\ude00": 1', "toy.yaml:2: '\\ude00' has half of a character"),
    ('name: t\nx: "\\U00110000"', "toy.yaml:2: an escape in this text names no character"),
    ('name: t\nx: "\\UFFFFFFFF"', "toy.yaml:2: an escape in this text names no character"),
    (LAUGHS, "toy.yaml: 100000 values or more"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "words"), BAD_FILES)
def test_a_file_that_is_no_recipe_is_one_line_with_file_and_line(tmp_path, text, words):
    with pytest.raises(RecipeError) as error:
        load(tmp_path, text)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_keys_of_different_values_stand_side_by_side():
    text = "{1: a, 2: b, '01': c, 1.5: d, one: e, no: f, false: g, null: h, '': i}"
    assert list(parse_recipe(text.encode(), "r")[0].values()) == list("abcdefghi")


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    assert load(tmp_path, "name: t".encode("utf-8-sig")).name == "t"


def test_two_escapes_of_one_character_are_read_as_json_writes_them(tmp_path):
    assert load(tmp_path, json.dumps({"name": "a 😀 b"})).name == "a 😀 b"
    assert parse_value('"\\ud83d\\ude00"') == "😀"


def test_an_empty_section_says_so_and_can_be_filled_by_an_override(tmp_path):
    text = "name: t\ninner:\n  # steps: 3\n"
    with pytest.raises(RecipeError, match=r"inner: the section is empty.* extends .*line 2"):
        load(tmp_path, text)
    assert load(tmp_path, text, "inner.steps=3").inner.steps == 3


def test_merged_mappings_override_in_the_order_of_the_specification(tmp_path):
    text = """
base: &base {steps: 1, lr: 1}
more: &more {<<: *base, steps: 2}
last: {<<: *more}
both: {<<: [*more, *base], lr: 3}
"""
    values, _ = parse_recipe(text.encode(), "r")
    assert values["more"] == {"steps": 2, "lr": 1} == values["last"]
    assert values["both"] == {"steps": 2, "lr": 3}


@pytest.mark.parametrize("text", ["run #1", "a: b", "*x", "- a", "@x", "%d", "!x", "C:\\x", "|"])
def test_a_value_on_the_command_line_is_taken_as_it_stands(tmp_path, text):
    assert load(tmp_path, "name: t", f"inner.column={text}").inner.column == text


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("=3", "KEY=VALUE"),
        ("inner..steps=3", "a part of the key is empty"),
        ("inner.steps.x=3", "inner.steps.x: inner.steps is a value"),
        ("inner={steps: 1, steps: 2}", "--set inner: .*'steps' stands twice"),
        ("inner=[1", "--set inner: .*not a YAML value"),
        ("inner={steps: x}", r"inner.steps: .*\(--set inner\)"),
    ],
)
def test_a_wrong_override_is_named(tmp_path, override, words):
    with pytest.raises(RecipeError, match=words):
        load(tmp_path, "name: t\ninner: {steps: 2}", override)


def test_home_is_expanded_in_every_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load(tmp_path, "name: t\ninner: {file: ~/x}").inner.file == f"{tmp_path}/x"
    assert load(tmp_path, "name: t", "inner.file=~/x").inner.file == f"{tmp_path}/x"
    assert load(tmp_path, "name: t\ninner: {file: s3://b/~x}").inner.file == "s3://b/~x"
    uri = TrackingParams(uri="sqlite:///~/runs.db").uri
    assert uri == f"sqlite:///{tmp_path}/runs.db"


def test_a_number_keeps_its_text_when_it_is_copied():
    assert copy.deepcopy(parse_value("1e6")).text == "1e6"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([text for text, _ in SCALARS]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(min_size=1), inner),
)  # fmt: skip


@given(st.dictionaries(st.text(min_size=1), JSON, min_size=1))
def test_a_written_recipe_reads_the_same_here_and_as_yaml_1_1(values):
    written = dump_recipe(values)
    assert parse_recipe(written, "r")[0] == values
    assert yaml.safe_load(written) == values
