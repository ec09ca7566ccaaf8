"""``docs/own-tasks.md`` word by word: each example file is read by the format of its heading."""

import re
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from pydantic import TypeAdapter

from pipelines.finetune.formats.registry import FORMATS, AnyFormat
from pipelines.finetune.registry import AnyTask
from pipelines.workflows.finetune_recipe import FinetuneRecipe

PAGE = (Path(__file__).parents[3] / "docs" / "own-tasks.md").read_text()
SECTIONS = re.findall(
    r"^## [^\n]*?`(own_\w+)`[^\n]*\n.*?task: (\{.*?\}).*?^```\n(.*?)^```", PAGE, re.M | re.S
)


def test_the_page_has_an_example_of_every_own_format():
    own = [each.__name__ for each in FORMATS if each.__name__.startswith("Own")]
    assert len(SECTIONS) == len(own) == 5


@pytest.mark.parametrize(("name", "task", "content"), SECTIONS)
def test_each_example_file_is_read_without_a_reject(tmp_path, name, task, content):
    (tmp_path / "own.csv").write_text(content)
    section = {"format": name, "file": str(tmp_path / "own.csv")}
    found = TypeAdapter(AnyFormat).validate_python(section)
    written = TypeAdapter(AnyTask).validate_python(yaml.safe_load(task))
    assert written.name in found.tasks
    examples = list(found.examples())
    assert examples and not [each for each in examples if each.reason]
    assert all(each.labels for each in examples) or not written.needs_labels
    rows = [{**vars(each), "example_id": each.id} for each in examples]
    table = pa.Table.from_pylist(rows)
    numbers = {label: i for i, label in enumerate(written.label_names({"train": table}))}
    assert all(written.is_used(table, numbers))


def test_the_recipes_of_the_page_are_recipes():
    blocks = [yaml.safe_load(b) for b in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)]
    recipes = [block for block in blocks if "name" in block]
    assert len(recipes) == 2
    for recipe in recipes:
        FinetuneRecipe.model_validate(recipe)
    splits = [each for block in blocks for each in block["data"].values()]
    assert len(splits) == 9
    for split in splits:
        TypeAdapter(AnyFormat).validate_python(split)


def test_every_published_format_is_listed():
    for each in FORMATS:
        assert f"`{each.model_fields['format'].annotation.__args__[0]}`" in PAGE
