"""``beit3 rejects``: rejected rows, and of curation also rejected captions, up to a limit."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from dataprep.schemas import KEPT, reject, rejects_table
from orchestration import Output
from orchestration.fingerprint import fingerprint_of
from orchestration.storage.store import Store
from pipelines.cli import app
from pipelines.commands.rejects import source_line
from tests.committing import commit_outputs


@pytest.fixture
def workdir(tmp_path):
    store = Store(tmp_path)
    stages = {"curate": "f"}
    images = [reject(f"own/{i:09d}", "own", "duplicate", "") for i in range(3)]
    captions = [reject(f"own/{i:09d}", "own", "caption_too_short", f"word{i}") for i in range(3, 6)]
    tables = {
        "pairs": KEPT.empty_table(),
        "rejects": rejects_table(images),
        "caption_rejects": rejects_table(captions),
    }
    commit_outputs(store.sub("curate/f"), [Output(6, tables)])
    folder = store.sub(f"workflows/{fingerprint_of(stages)}")
    record = {"name": "tiny", "stages": stages, "started_at": 0}
    folder.write_bytes("record.json", json.dumps(record).encode())
    recipe = {"sources": {"own": {"format": "csv", "list": "own.csv"}}}
    folder.write_bytes("recipe.yaml", yaml.safe_dump(recipe).encode())
    return tmp_path


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ([], [0, 1, 2, 3, 4, 5]),
        (["--limit", "2"], [0, 1]),
        (["--limit", "4"], [0, 1, 2, 3]),
        (["--reason", "caption_too_short"], [3, 4, 5]),
        (["--reason", "duplicate", "--limit", "1"], [0]),
    ],
)
def test_rejected_rows_and_captions_are_listed_with_their_lines(workdir, options, shown):
    words = ["rejects", "curate", "--workdir", str(workdir), *options]
    done = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "3 rejects (duplicate 3)" in done.output and "3 caption rejects" in done.output
    assert [i for i in range(6) if f"own.csv:{i} " in done.output] == shown
    assert ("word4" in done.output) == (4 in shown)


def test_inputs_of_a_model_are_named_by_their_paths():
    assert source_line("/photos/0001", "inputs", {"operation": "embed"}) == "/photos/0001"
    assert source_line("/a.parquet:7", "inputs", {"operation": "embed"}) == "/a.parquet:7"
