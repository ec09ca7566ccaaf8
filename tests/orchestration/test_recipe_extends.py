"""A recipe that extends another one: merged values, and errors that name the right file."""

from pathlib import Path

import pytest

from orchestration.errors import RecipeError
from orchestration.recipe import load_recipe
from orchestration.recipe_extends import merged, read_extended
from tests.orchestration.test_recipe import Toy


def write(folder: Path, **texts: str) -> dict[str, Path]:
    paths = {name: folder / f"{name}.yaml" for name in texts}
    for name, text in texts.items():
        paths[name].write_text(text)
    return paths


@pytest.mark.parametrize(
    ("base", "changes", "expected"),
    [
        ({"a": 1, "b": 2}, {"b": 3}, {"a": 1, "b": 3}),
        ({"s": {"a": 1, "b": 2}}, {"s": {"b": 3}}, {"s": {"a": 1, "b": 3}}),
        ({"s": {"a": {"x": 1}}}, {"s": {"a": {"y": 2}}}, {"s": {"a": {"x": 1, "y": 2}}}),
        ({"s": [1, 2]}, {"s": [3]}, {"s": [3]}),
        ({"s": {"a": 1}}, {"s": None}, {"s": None}),
        ({"s": 1}, {"s": {"a": 1}}, {"s": {"a": 1}}),
        ({}, {"s": {"a": 1}}, {"s": {"a": 1}}),
    ],
)
def test_sections_are_merged_key_by_key_and_other_values_replaced(base, changes, expected):
    before = str(base)
    assert merged(base, changes) == expected
    assert str(base) == before


def test_the_extending_recipe_wins_over_those_that_it_extends(tmp_path):
    paths = write(
        tmp_path,
        first="name: first\nseed: 1\ntrain: {steps: 5, num_workers: 2}\n",
        second="extends: first.yaml\nname: second\nseed: 2\n",
        third="extends: second\ntrain: {steps: 7}\n",
    )
    recipe = load_recipe(Toy, paths["third"], known={"second": paths["second"]}, environment={})
    assert (recipe.name, recipe.seed) == ("second", 2)
    assert (recipe.train.steps, recipe.train.num_workers) == (7, 2)


def test_a_path_is_relative_to_the_extending_recipe(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    write(tmp_path, base="name: base\n")
    (own,) = write(tmp_path / "deep", own="extends: ../base.yaml\nseed: 4\n").values()
    monkeypatch.chdir("/")
    assert read_extended(own)[0] == {"name": "base", "seed": 4}


def test_an_error_names_the_line_of_the_file_that_has_the_value(tmp_path):
    paths = write(
        tmp_path,
        base="name: base\ntrain:\n  steps: many\n  num_workers: 3\n",
        own="extends: base.yaml\nseed: few\ntrain:\n  num_workers: none\n",
    )
    with pytest.raises(RecipeError) as error:
        load_recipe(Toy, paths["own"], environment={})
    message = str(error.value)
    assert "(line 3 of base.yaml)" in message.split("train.steps")[1].splitlines()[0]
    assert "(line 4)" in message.split("train.num_workers")[1].splitlines()[0]
    assert "(line 2)" in message.split("seed")[1].splitlines()[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "extends: nowhere\nname: a\n",
            "own.yaml:1: extends: 'nowhere' is no file and no built-in",
        ),
        ("name: a\nextends: [base]\n", "own.yaml:2: extends: ['base'] is no name or path"),
        ("extends: ''\n", "is no name or path of a recipe; write it as extends: base"),
        ("extends: own.yaml\n", "extends itself in the end"),
        ("extends: ~nobody-here/a.yaml\n", "no path of a recipe (no home is known for ~nobody"),
        (f"extends: {'x' * 300}\n", "no path of a recipe (File name too long)"),
        ("extends: other.yaml\n", "other.yaml:1: extends: 'own.yaml' extends itself in the end"),
    ],
)
def test_what_cannot_be_extended_is_refused_in_one_line(tmp_path, text, words):
    paths = write(tmp_path, own=text, other="extends: own.yaml\n")
    with pytest.raises(RecipeError) as error:
        read_extended(paths["own"], {"base": tmp_path / "base.yaml"})
    assert words in str(error.value) and "\n" not in str(error.value)


def test_extends_null_extends_nothing(tmp_path):
    (own,) = write(tmp_path, own="extends: null\nname: own\n").values()
    assert read_extended(own)[0] == {"name": "own"}
