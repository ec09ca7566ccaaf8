"""A list given by URI has the same rows as the same list on a disk."""

from pathlib import Path

import pytest

from orchestration import Dataset
from orchestration.plan import State
from orchestration.storage.remote_files import version_of
from orchestration.storage.store import Store
from pipelines.commands.options import console
from pipelines.commands.run import run_opened
from pipelines.open_recipe import open_recipe
from tests.one_file import serving

RECIPE = """
name: remote
cluster: {{num_cpus: 2, object_store_mb: 128}}
sources:
  near: {{format: cc3m, list: {path}, slice_lines: 40}}
  far: {{format: cc3m, list: "{uri}", slice_lines: 40}}
  texts: {{format: jsonl, file: {path}}}
  images: {{format: imagenet21k, archive: {path}}}
download: {{contact: me@example.org}}
image_tokenizer: {{teacher: hand_crafted}}
"""


@pytest.mark.slow
def test_a_list_given_by_uri_has_the_same_rows_as_on_a_disk(web, tmp_path):
    path, workdir = web / "cc3m.tsv", tmp_path / "work"
    version_of.cache_clear()
    with serving(path.read_bytes()) as server:
        recipe = tmp_path / "remote.yaml"
        recipe.write_text(RECIPE.format(path=path, uri=server.uri))
        for source in ("near", "far"):
            opened = open_recipe(str(recipe), str(workdir), [], console)
            run_opened(opened, only=f"index/{source}")
        near, far = (rows(workdir, source) for source in ("near", "far"))
        assert near and near == far
        assert not list((workdir / "index" / "far").glob("*/external"))

        def state() -> State:
            version_of.cache_clear()
            opened = open_recipe(str(recipe), str(workdir), [], console)
            planned = {p.stage.name: p for p in opened.workflow.plan(opened.store)}
            return planned["index/far"].state

        assert state() is State.FRESH
        server.etag = '"another"'
        assert state() is State.STALE


def rows(workdir: Path, source: str) -> list[tuple[str, ...]]:
    folder = next((workdir / "index" / source).glob("*"))
    dataset = Dataset.open(Store(folder))
    found = dataset.table("data").read().to_pylist()
    return [
        (row["sample_id"].removeprefix(f"{source}/"), row["url"], *row["captions"]) for row in found
    ]
