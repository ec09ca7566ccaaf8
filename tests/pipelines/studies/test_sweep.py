"""``beit3 sweep`` and ``beit3 plan`` of a study: what is run, in which order, what is reused."""

import csv

import pytest
from lxml import html
from typer.testing import CliRunner

from orchestration.errors import LockError, RecipeError, StageError
from orchestration.storage.lock import workdir_lock
from orchestration.storage.store import Store
from pipelines.cli import app
from tests.pipelines.studies.small_study import Runs, without_training, write_study

ALL = [(masking, seed) for masking in ("separate", "joint") for seed in range(3)]


@pytest.fixture
def runs(monkeypatch) -> Runs:
    return without_training(monkeypatch)


def command(verb: str, folder, *more: str, **values):
    path = write_study(folder, **values)
    return CliRunner().invoke(app, [verb, str(path), "--workdir", str(folder / "work"), *more])


def sweep(folder, *more: str, **values):
    return command("sweep", folder, *more, **values)


def test_a_study_runs_variant_by_variant_and_makes_shared_stages_once(tmp_path, runs):
    done = sweep(tmp_path)
    assert done.exit_code == 0, done.exception
    assert runs.started == ALL
    assert "4 of 6: joint, seed 0" in done.output
    workdir = Store(tmp_path / "work")
    counts = {
        name: len(workdir.folders(name))
        for name in ("download/pairs", "curate", "image_tokens", "pair_tokens", "pretrain")
    }
    assert counts == {
        "download/pairs": 1, "curate": 1, "image_tokens": 1, "pair_tokens": 1, "pretrain": 6,
    }  # fmt: skip
    assert runs.ended == ["FINISHED"]
    assert runs.artifacts == ["study.yaml", "comparison.html", "comparison.csv"]


def test_a_study_ends_with_the_page_of_its_metrics_and_variants(tmp_path, runs):
    done = sweep(tmp_path, metrics=["grounding/words/gap", "accuracy/nothing"])
    assert "metric accuracy/nothing: no run has it" in done.output
    (page,) = (tmp_path / "work" / "studies").glob("*/comparison.html")
    tree = html.fromstring(page.read_text())
    assert tree.xpath("//h1")[0].text == "masking"
    assert [e.text for e in tree.xpath("//figcaption/b")] == ["grounding/words/gap"]
    (difference,) = tree.xpath("//td[contains(., '2: joint')]/..")
    cells = [cell.text_content() for cell in difference.xpath("td")]
    assert cells[3:6] == ["0.0300", "0.0052 to 0.0548", "-0.0600"]
    assert cells[7] == "paired by seed (3); excludes 0"
    rows = list(csv.DictReader(page.with_suffix(".csv").open()))
    assert [row["train.pair_masking"] for row in rows] == ["separate", "joint"]


def test_the_same_command_runs_what_is_missing_and_adopts_what_is_complete(tmp_path, runs):
    assert sweep(tmp_path, seeds=[0, 1]).exit_code == 0
    runs.started.clear()
    assert sweep(tmp_path).exit_code == 0
    assert runs.started == [("separate", 2), ("joint", 2)]
    assert runs.adopted == [
        f"masking: {masking}, seed {seed}" for masking in ("separate", "joint") for seed in (0, 1)
    ]


def test_a_run_that_fails_stops_no_other_one_and_is_named(tmp_path, runs):
    runs.failing.add(("separate", 1))
    done = sweep(tmp_path)
    assert runs.started == ALL and runs.ended == ["FAILED"]
    assert isinstance(done.exception, StageError)
    assert "1 of 6 combinations failed: separate, seed 1;" in str(done.exception)
    runs.failing.clear()
    runs.started.clear()
    assert sweep(tmp_path).exit_code == 0 and runs.started == [("separate", 1)]


def test_a_study_whose_workdir_is_in_use_changes_nothing(tmp_path, runs):
    store = Store(tmp_path / "work")
    with workdir_lock(store):
        done = sweep(tmp_path)
    assert isinstance(done.exception, LockError)
    assert not runs.started and not runs.ended and not store.folders()


def test_a_setting_of_the_command_line_goes_to_every_run(tmp_path, runs, monkeypatch):
    steps = []
    run = runs.run
    monkeypatch.setattr(
        runs, "run", lambda workflow, *a, **o: steps.append(workflow.recipe.train.steps)
        or run(workflow, *a, **o),
    )  # fmt: skip
    assert sweep(tmp_path, "--set", "train.steps=9").exit_code == 0
    assert steps == [9] * 6


def test_a_wrong_value_is_found_before_anything_runs(tmp_path, runs):
    done = sweep(tmp_path, grid={"train.steps": [5, "many"]})
    assert isinstance(done.exception, RecipeError) and "many" in str(done.exception)
    assert not runs.started and not runs.ended


def test_a_plan_lists_the_runs_and_runs_nothing(tmp_path, runs):
    done = command("plan", tmp_path)
    assert done.exit_code == 0, done.exception
    assert "6 runs, one after the other" in done.output and "all runs" in done.output
    assert not runs.started and not (tmp_path / "work").exists()
