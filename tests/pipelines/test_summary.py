"""The summary of a fine-tuning, printed at its end and by ``beit3 report`` and ``status``."""

import re

import pytest
from typer.testing import CliRunner

from orchestration.storage.store import Store
from pipelines.cli import app
from pipelines.report.scores import measured
from tests.pipelines.finetune.committed import commit, glue_recipe

NUMBERS = {
    "dev/num_examples": 277.0,
    "dev/accuracy": 0.71234,
    "dev/chance/accuracy": 0.5271,
    "dev/score": 0.71234,
    "test/num_examples": 3000.0,
    "published/dev/accuracy": 0.734,
    "published/test/accuracy": 0.75,
}


def shown(command: str, workdir: Store) -> str:
    done = CliRunner().invoke(app, [command, "--workdir", workdir.uri])
    assert done.exit_code == 0, done.exception
    return done.output


def test_each_metric_stands_beside_chance_and_its_published_value():
    rows = {row.name: row for row in measured(NUMBERS)}
    assert list(rows) == ["dev/accuracy", "dev/score", "test/accuracy"]
    dev, test = rows["dev/accuracy"], rows["test/accuracy"]
    assert (dev.value, dev.chance, dev.published, dev.num_examples) == (0.71234, 0.5271, 0.734, 277)
    # The labels of this split are on a server: what was published is shown alone.
    assert (test.value, test.chance, test.published, test.num_examples) == (None, None, 0.75, 3000)


def test_the_report_of_a_finetuning_names_its_score_and_the_locations_of_its_results(tmp_path):
    workdir = Store(tmp_path / "work")
    workflow = commit(glue_recipe(tmp_path), workdir, NUMBERS)
    output = shown("report", workdir)
    assert re.search(r"dev\W+accuracy\W+0\.7123\W+0\.5271\W+0\.7340\W+277", output)
    assert re.search(r"test\W+accuracy\W+0\.7500\W+3000", output)
    folders = {p.stage.name: workdir.sub(p.path) for p in workflow.plan(workdir)}
    for line, stage, path in (
        ("curve", "finetune", "curve.png"),
        ("report", "task_report", "report.html"),
        ("export", "export", "export"),
    ):
        assert re.search(rf"^{line} +{re.escape(folders[stage].uri_of(path))}$", output, re.M)
    assert "fresh" in shown("status", workdir)


@pytest.mark.parametrize("until", ["finetune", "score", "task_report", "export"])
def test_the_report_of_an_unfinished_finetuning_shows_what_there_is(tmp_path, until):
    workdir = Store(tmp_path / "work")
    commit(glue_recipe(tmp_path), workdir, NUMBERS, until)
    output = shown("report", workdir)
    assert ("0.7123" in output) == (until in ("task_report", "export"))
    assert ("/report.html" in output) == (until == "export")
    assert "export/network.json" not in output
    assert "missing" in shown("status", workdir)


def test_published_values_are_no_part_of_the_fingerprint(tmp_path):
    workdir = Store(tmp_path / "work")
    commit(glue_recipe(tmp_path), workdir, {})
    changed = glue_recipe(tmp_path, published={"dev/accuracy": 0.7})
    planned = commit(changed, workdir, {}).plan(workdir)
    assert {str(p.state) for p in planned} == {"fresh"}
