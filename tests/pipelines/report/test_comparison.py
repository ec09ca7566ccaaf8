"""Comparing committed scores: rows, medians, the settings that differ, CSV and the command."""

import csv
import io
import itertools
import statistics

import pytest
from rich.console import Console
from typer.testing import CliRunner

from orchestration import Recipe, Stage, Workflow, feeding
from orchestration.errors import ManifestError
from orchestration.manifest import MANIFEST
from orchestration.params import StageParams
from orchestration.storage.store import Store
from pipelines.cli import app
from pipelines.report.comparison import best_on_dev, differing, rows_of
from pipelines.report.comparison_tables import comparison_tables, to_csv
from pipelines.report.results import FRESH, read_results
from tests.pipelines.finetune.committed import commit, commit_stages, glue_recipe


def finetune(folder, workdir: Store, value: float, **changes) -> None:
    """Commit a fine-tuning whose accuracy is ``value``; ``lr`` and ``batch`` are settings of it."""
    settings = {"lr": changes.pop("lr", 3e-5), "batch_size": changes.pop("batch", 32)}
    numbers = {
        "dev/num_examples": 277.0,
        "dev/accuracy": value,
        "dev/chance/accuracy": 0.5,
        "dev/score": value,
        "published/dev/accuracy": 0.7,
    }
    commit(glue_recipe(folder, finetune=settings, **changes), workdir, numbers)


def rows_in(*workdirs: Store):
    return rows_of([result for workdir in workdirs for result in read_results(workdir)])


def text_of(rows, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    for table in comparison_tables(rows):
        console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_several_seeds_of_the_same_settings_are_one_row(tmp_path):
    workdir = Store(tmp_path / "work")
    values = {}
    grid = itertools.product((1e-5, 2e-5), (16, 32), range(3))
    for number, (lr, batch, seed) in enumerate(grid):
        value = 0.6 + (number * 7 % 12) / 100
        values.setdefault((str(lr), str(batch)), []).append(value)
        finetune(tmp_path, workdir, value, lr=lr, batch=batch, seed=seed)
    rows = rows_in(workdir)
    assert len(rows) == 4
    assert differing(rows) == ["finetune.batch_size", "finetune.lr"]
    found = {}
    for row in rows:
        settings = row.first.settings
        spread = row.spread("dev/accuracy")
        found[settings["finetune.lr"], settings["finetune.batch_size"]] = spread
        assert sorted(result.seed for result in row.results) == [0, 1, 2]
    for key, some in values.items():
        spread = found[key]
        assert spread is not None
        assert spread.median == statistics.median(some)
        assert (spread.low, spread.high, spread.count) == (min(some), max(some), 3)
    best = best_on_dev(rows)
    assert best is not None
    row, metric = best
    assert metric == "dev/score"
    assert row.spread(metric).median == max(map(statistics.median, values.values()))


def test_a_result_in_two_workdirs_counts_once_and_other_starts_are_other_rows(tmp_path):
    one, other = Store(tmp_path / "one"), Store(tmp_path / "other")
    (tmp_path / "better").write_text("other weights")
    finetune(tmp_path, one, 0.7)
    finetune(tmp_path, other, 0.7)
    assert [len(row.results) for row in rows_in(one, other)] == [1]
    finetune(tmp_path, other, 0.8, start_from=str(tmp_path / "better"))
    finetune(tmp_path, other, 0.6, network={"fresh_weights": True})
    rows = rows_in(one, other)
    starts = {row.spread("dev/accuracy").median: row.first.start for row in rows}
    assert starts[0.6] == FRESH
    assert starts[0.7].startswith(f"{tmp_path / 'weights'} (sha256:")
    assert starts[0.8].startswith(f"{tmp_path / 'better'} (sha256:")
    assert differing(rows) == []  # the column of the start says it


def test_other_data_is_another_row_whose_setting_is_a_digest(tmp_path):
    workdir = Store(tmp_path / "work")
    finetune(tmp_path, workdir, 0.7)
    (tmp_path / "train").write_text("more")
    finetune(tmp_path, workdir, 0.8)
    rows = rows_in(workdir)
    assert differing(rows) == ["data.train.file"]
    values = [row.first.settings["data.train.file"] for row in rows]
    assert all(value.startswith("sha256:") for value in values)
    assert values[0][:15] in text_of(rows) and values[0] not in text_of(rows)


def test_an_output_that_was_deleted_is_no_reason_to_take_two_settings_for_one(tmp_path):
    workdir = Store(tmp_path / "work")
    finetune(tmp_path, workdir, 0.7, lr=1e-5)
    finetune(tmp_path, workdir, 0.8, lr=2e-5)
    for name in workdir.folders("finetune"):
        workdir.sub(f"finetune/{name}").remove("stage.json")
    rows = rows_in(workdir)
    assert len(rows) == 2
    assert differing(rows) == ["finetune.deleted"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"params": 1}', b"\xff\xfe\x00"])
def test_a_damaged_identity_is_named_in_one_line(tmp_path, content):
    workdir = Store(tmp_path / "work")
    finetune(tmp_path, workdir, 0.7)
    (name,) = workdir.folders("finetune")
    workdir.sub(f"finetune/{name}").write_bytes("stage.json", content)
    with pytest.raises(ManifestError, match=rf"finetune/{name}/stage\.json is damaged: .*remove"):
        rows_in(workdir)


def test_an_unfinished_score_is_left_out(tmp_path):
    workdir = Store(tmp_path / "work")
    finetune(tmp_path, workdir, 0.7)
    (name,) = workdir.folders("score")
    workdir.sub(f"score/{name}").remove(MANIFEST)
    assert rows_in(workdir) == []


def test_a_retrieval_is_compared_by_its_own_metric_and_by_published_ones(tmp_path):
    names = [f"{a}/recall_at_{k}" for a in ("image_to_text", "text_to_image") for k in (1, 5, 10)]
    numbers = {f"dev/{name}": 0.1 * i for i, name in enumerate([*names, "mean_recall"])}
    numbers["published/dev/image_to_text/recall_at_1"] = 0.791
    (tmp_path / "images").mkdir()
    files = {"format": "own_captions", "images": str(tmp_path / "images")}
    data = {split: {**files, "file": str(tmp_path / split)} for split in ("train", "dev")}
    recipe = glue_recipe(tmp_path, task={"name": "retrieval"}, data=data)
    workdir = Store(tmp_path / "work")
    commit(recipe, workdir, numbers)
    (row,) = rows_in(workdir)
    assert row.main_names() == ["dev/image_to_text/recall_at_1", "dev/mean_recall"]
    rows = list(csv.DictReader(io.StringIO(to_csv([row]))))
    assert {f"dev/{name}" for name in names} < rows[0].keys()


class Params(StageParams):
    """Parameters of a stage."""

    start_from: str | None = None
    steps: int = 10


def evaluate(workdir: Store, seed: int, steps: int, loss: float) -> None:
    """Commit a pretraining of two stages, and its evaluation."""
    pretrain = Stage("pretrain", lambda c: None, Params(steps=steps), seed=seed)
    checked = Stage(
        "evaluate", lambda c: None, StageParams(), feeding(checkpoint=pretrain), seed=seed
    )
    workflow = Workflow(Recipe(name="small"), (pretrain, checked))
    commit_stages(workflow, workdir, {"evaluate": {"loss/mlm": loss, "num_targets/mlm": 4096.0}})


def test_evaluations_of_pretrainings_stand_side_by_side(tmp_path):
    workdir = Store(tmp_path / "work")
    for seed, steps, loss in ((0, 10, 3.25), (1, 10, 3.5), (0, 20, 2.125)):
        evaluate(workdir, seed, steps, loss)
    rows = rows_in(workdir)
    assert [row.first.settings["train.steps"] for row in rows] == ["10", "20"]
    assert {row.first.start for row in rows} == {FRESH}
    text = text_of(rows)
    for words in ("3.3750 (3.2500–3.5000)", "2.1250", "4096", "train.steps"):
        assert words in text
    assert best_on_dev(rows) is None


class Codebook(StageParams):
    """Parameters of an image tokenizer, given or trained."""

    weights: str | None
    steps: int
    image_size: int = 64


def test_the_training_of_a_given_tokenizer_is_no_setting(tmp_path):
    workdir = Store(tmp_path / "work")
    for weights, steps in ((None, 5), ("vqkd.pt", 6), ("vqkd.pt", 7)):
        codebook = Stage("image_tokenizer", lambda c: None, Codebook(weights=weights, steps=steps))
        checked = Stage("evaluate", lambda c: None, StageParams(), feeding(codes=codebook), seed=0)
        workflow = Workflow(Recipe(name="own"), (codebook, checked))
        commit_stages(workflow, workdir, {"evaluate": {"loss/mlm": float(steps)}})
    found = {}
    for row in rows_in(workdir):
        own = {k: v for k, v in row.first.settings.items() if k.startswith("image_tokenizer.")}
        found[own["image_tokenizer.weights"]] = len(row.results), own.get("image_tokenizer.steps")
        assert own["image_tokenizer.image_size"] == "64"
    assert found == {"null": (1, "5"), "vqkd.pt": (2, None)}


def compare(*arguments: str):
    return CliRunner().invoke(app, ["compare", *arguments])


def test_the_command_prints_the_table_and_writes_every_number(tmp_path):
    workdirs = [Store(tmp_path / name) for name in ("one", "two")]
    finetune(tmp_path, workdirs[0], 0.71, seed=0)
    finetune(tmp_path, workdirs[0], 0.75, seed=1)
    finetune(tmp_path, workdirs[1], 0.5, lr=1e-4)
    evaluate(workdirs[1], 0, 10, 3.25)
    file = tmp_path / "all.csv"
    done = compare(*(w.uri for w in workdirs), "--csv", str(file))
    assert done.exit_code == 0, done.exception
    assert "evaluations" in done.output and "scores" in done.output
    rows = list(csv.DictReader(file.open()))
    by_lr = {row["finetune.lr"]: row for row in rows}
    both = by_lr["3e-05"]
    assert [float(both[f"dev/accuracy{part}"]) for part in ("", " min", " max")] == pytest.approx(
        [0.73, 0.71, 0.75]
    )
    assert (both["num_seeds"], both["seeds"]) == ("2", "0 1")
    assert both["published/dev/accuracy"] == "0.7"
    assert by_lr["0.0001"]["workdirs"] == workdirs[1].uri
    assert by_lr[""]["stage"] == "evaluate" and by_lr[""]["loss/mlm"] == "3.25"


def test_a_workdir_without_results_and_a_file_in_no_folder_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    done = compare(str(tmp_path / "empty"))
    assert done.exit_code and "no score and no evaluation" in str(done.exception)
    finetune(tmp_path, Store(tmp_path / "work"), 0.7)
    done = compare(str(tmp_path / "work"), "--csv", str(tmp_path / "missing" / "file.csv"))
    assert done.exit_code and "cannot be written" in str(done.exception)


def test_a_result_that_another_workdir_has_too_is_named(tmp_path):
    workdirs = [Store(tmp_path / name) for name in ("one", "two", "three")]
    for workdir, value in zip(workdirs, (0.61, 0.64, 0.61), strict=True):
        finetune(tmp_path, workdir, value)
    done = compare(*(workdir.uri for workdir in workdirs))
    assert done.exit_code == 0, done.output
    _, two, three = (workdir.uri for workdir in workdirs)
    (other,) = [line for line in done.output.splitlines() if line.startswith(f"{two}: ")]
    (same,) = [line for line in done.output.splitlines() if line.startswith(f"{three}: ")]
    assert f"that in {workdirs[0].uri}, which is shown instead" in other
    assert other.endswith("2 of its numbers differ, such as dev/accuracy: 0.64 and 0.61")
    assert same.endswith("its numbers are the same")
