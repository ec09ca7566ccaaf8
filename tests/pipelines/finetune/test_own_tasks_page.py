"""``docs/own-tasks.md`` word by word: each example file is read by the format of its heading."""

import re
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from pipelines.finetune.formats.registry import FORMATS, AnyFormat

PAGE = (Path(__file__).parents[3] / "docs" / "own-tasks.md").read_text()
SECTIONS = re.findall(
    r"^## [^\n]*?`(own_\w+)`[^\n]*\n.*?name: (\w+).*?^```\n(.*?)^```", PAGE, re.M | re.S
)


def test_the_page_has_an_example_of_every_own_format():
    own = [each.__name__ for each in FORMATS if each.__name__.startswith("Own")]
    assert len(SECTIONS) == len(own) == 5


@pytest.mark.parametrize(("name", "task", "content"), SECTIONS)
def test_each_example_file_is_read_without_a_reject(tmp_path, name, task, content):
    (tmp_path / "own.csv").write_text(content)
    section = {"format": name, "file": str(tmp_path / "own.csv")}
    found = TypeAdapter(AnyFormat).validate_python(section)
    assert found.tasks == {task}
    examples = list(found.examples())
    assert examples and not [each for each in examples if each.reason]
    assert all(each.labels for each in examples) or task == "retrieval"


def test_the_recipes_of_the_page_are_formats():
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
    splits = [each for block in blocks for each in yaml.safe_load(block)["data"].values()]
    assert len(splits) == 6
    for split in splits:
        TypeAdapter(AnyFormat).validate_python(split)


def test_every_published_format_is_listed():
    for each in FORMATS:
        assert f"`{each.model_fields['format'].annotation.__args__[0]}`" in PAGE
