"""Recipes: precedence of values, messages of errors, and which fields are semantic."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Discriminator, Field, Tag

from orchestration.errors import RecipeError
from orchestration.fingerprint import file_digest, semantic
from orchestration.params import (
    EXTERNAL_FILE,
    OPERATIONAL,
    ExternalFile,
    StageParams,
    external_files,
)
from orchestration.recipe import Recipe, load_recipe


class Train(StageParams):
    steps: int = 10
    num_workers: Annotated[int, OPERATIONAL] = 1
    urls: Annotated[str | None, EXTERNAL_FILE] = None


class Toy(Recipe):
    train: Train = Train()


def load(tmp_path: Path, text: str, overrides=(), environment=None) -> Toy:
    path = tmp_path / "toy.yaml"
    path.write_text(text)
    return load_recipe(
        Toy,
        path,
        variables={"workdir": str(tmp_path)},
        overrides=overrides,
        environment=environment or {},
    )


class Square(StageParams):
    shape: Literal["square"]
    side: int


class Circle(StageParams):
    shape: Literal["circle"]
    radius: int


class Many(StageParams):
    """Fields whose errors have tags of unions in their location."""

    number: Annotated[
        Annotated[int, Field(ge=1), Tag("one")] | Annotated[tuple[int, int], Tag("range")],
        Discriminator(lambda value: "range" if isinstance(value, list) else "one"),
    ] = 1
    either: int | list[str] = 1
    shapes: dict[str, Annotated[Square | Circle, Field(discriminator="shape")]] = Field(
        default_factory=dict
    )


class WithUnions(Recipe):
    many: Many = Many()


@pytest.mark.parametrize(
    ("many", "key"),
    [
        ("{number: 0}", "many.number"),
        ("{number: [1, x]}", "many.number.1"),
        ("{either: x}", "many.either"),
        ("{either: [a, [b]]}", "many.either"),
        ("{either: [a, [b]]}", "many.either.1"),
        ("{shapes: {square: {shape: square}}}", "many.shapes.square.side"),
        ("{shapes: {a: {shape: circle, radius: x}}}", "many.shapes.a.radius"),
        ("{shapes: {a: {shape: circle, side: 1}}}", "many.shapes.a.side"),
        ("{shapes: {a: {shape: star}}}", "many.shapes.a"),
        ("{shapes: {a: {}}}", "many.shapes.a"),
    ],
)
def test_an_error_names_the_keys_that_stand_in_the_recipe(tmp_path, many, key):
    path = tmp_path / "r.yaml"
    path.write_text(f"name: t\nmany: {many}")
    with pytest.raises(RecipeError) as error:
        load_recipe(WithUnions, path)
    assert f"\n  {key}: " in str(error.value)


def test_precedence_is_defaults_then_recipe_then_environment_then_command_line(tmp_path):
    text = "name: t\ntrain: {steps: 20}"
    environment = {"BEIT3__train__steps": "30"}
    assert load(tmp_path, "name: t").train.steps == 10
    assert load(tmp_path, text).train.steps == 20
    assert load(tmp_path, text, environment=environment).train.steps == 30
    assert load(tmp_path, text, ["train.steps=40"], environment).train.steps == 40


def test_a_variable_is_replaced_by_its_value(tmp_path):
    recipe = load(tmp_path, 'name: t\ntrain: {urls: "${workdir}/urls.tsv"}')
    assert recipe.train.urls == f"{tmp_path}/urls.tsv"


@pytest.mark.parametrize(
    ("text", "overrides", "words"),
    [
        ("name: t\ntrain: {stepps: 3}", [], ["train.stepps", "unknown key", "'steps'"]),
        ("name: t\ntrain: {steps: many}", [], ["train.steps", "'many'"]),
        ("name: [", [], ["not valid YAML"]),
        ("- a", [], ["a mapping of sections"]),
        ("train: {}", [], ["name", "required"]),
        ("name: t", ["train.steps"], ["KEY=VALUE"]),
        ("name: t", ["name.x=1"], ["name is a value"]),
    ],
)
def test_an_invalid_recipe_gives_one_message_that_names_the_key(tmp_path, text, overrides, words):
    with pytest.raises(RecipeError) as error:
        load(tmp_path, text, overrides)
    for word in words:
        assert word in str(error.value)


def test_a_missing_recipe_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"nowhere\.yaml"):
        load_recipe(Toy, tmp_path / "nowhere.yaml")


def test_only_fields_that_change_the_result_are_semantic(tmp_path):
    urls = tmp_path / "urls.tsv"
    urls.write_text("a\n")
    params = Train(urls=str(urls))
    copied = tmp_path / "elsewhere.tsv"
    copied.write_text("a\n")
    assert semantic(params) == semantic(Train(urls=str(copied), num_workers=8))
    copied.write_text("b\n")
    assert semantic(params) != semantic(Train(urls=str(copied)))


def test_external_files_are_found_under_their_keys(tmp_path):
    recipe = load(tmp_path, "name: t\ntrain: {urls: x.tsv}")
    assert list(external_files(recipe)) == [ExternalFile("train.urls", "x.tsv", or_uri=False)]


def test_a_missing_external_file_is_named():
    with pytest.raises(RecipeError, match=r"gone\.tsv"):
        semantic(Train(urls="gone.tsv"))


def test_a_folder_digest_covers_the_names_sizes_and_ends_of_its_files(tmp_path):
    def digest(name: str, **files: str) -> str:
        folder = tmp_path / name
        (folder / "inner").mkdir(parents=True)
        for file, text in files.items():
            (folder / "inner" / file).write_text(text)
        return file_digest(folder)

    same = digest("a", x="one", y="two")
    assert same == digest("b", y="two", x="one")
    assert same != digest("c", x="one", y="twa")
    assert same != digest("d", x="one", z="two")
    assert same != digest("e", x="onetwo", y="")
