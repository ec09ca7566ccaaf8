"""The registry of sources: what a recipe relies on for every one of them."""

from collections import Counter
from typing import get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from pipelines.ingest.download import Params as DownloadParams
from pipelines.ingest.source import Kind, Source
from pipelines.ingest.sources.registry import SOURCES, AnyImageSource, AnySource

DOWNLOAD = DownloadParams(contact="tests")
EXPECTED_STAGES = {
    "PairList": ("index/a", "download/a"),
    "ImageArchive": ("import/a",),
    "Corpus": ("documents/a",),
}


def example(source: type[Source], format_: str) -> dict[str, str]:
    """Return the smallest recipe section of a source: its required fields, all of them paths."""
    required = {name for name, field in source.model_fields.items() if field.is_required()}
    return dict.fromkeys(required, "/no/such/file") | {"format": format_}


FORMATS = [
    (source, format_)
    for source in SOURCES
    for format_ in get_args(source.model_fields["format"].annotation)
]


def test_every_format_belongs_to_one_source():
    assert set(Counter(format_ for _, format_ in FORMATS).values()) == {1}
    assert {source.kind for source in SOURCES} == set(get_args(Kind))


@pytest.mark.parametrize(("source", "format_"), FORMATS)
def test_a_recipe_section_gives_the_source_and_its_stages(source, format_):
    section = example(source, format_)
    found = TypeAdapter(AnySource).validate_python(section)
    assert type(found) is source
    (base,) = EXPECTED_STAGES.keys() & {each.__name__ for each in source.__mro__}
    stages = found.stages("a", DOWNLOAD)
    assert tuple(stage.name for stage in stages) == EXPECTED_STAGES[base]
    assert all(stage.inputs == {} for stage in stages[:1])
    if source.kind == "texts":
        with pytest.raises(ValidationError, match="format"):
            TypeAdapter(AnyImageSource).validate_python(section)
    else:
        assert TypeAdapter(AnyImageSource).validate_python(section) == found


@pytest.mark.parametrize("source", SOURCES)
def test_every_field_of_a_source_is_described(source):
    undescribed = [name for name, field in source.model_fields.items() if not field.description]
    assert undescribed == []
