"""``beit3 grid``: what it runs, in which order, and what it says in the end."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestration.errors import RecipeError, StageError
from orchestration.recipe_text import dump_recipe
from orchestration.storage.store import Store
from orchestration.workflow import Workflow
from pipelines.cli import app
from pipelines.commands.grid import combinations
from tests.pipelines.finetune.committed import commit_stages, glue_recipe


@pytest.mark.parametrize(
    ("over", "expected"),
    [
        (["seed=0"], [["seed=0"]]),
        (["a.b=1e-5,2e-5", "seed=0,1"], [["a.b=1e-5", "seed=0"], ["a.b=1e-5", "seed=1"],
                                         ["a.b=2e-5", "seed=0"], ["a.b=2e-5", "seed=1"]]),
        (["betas=[0.9,0.98],[0.9,0.999]"], [["betas=[0.9,0.98]"], ["betas=[0.9,0.999]"]]),
        (["a={x: 1, y: 2},null"], [["a={x: 1, y: 2}"], ["a=null"]]),
        (["a='x,y', z "], [["a='x,y'"], ["a=z"]]),
        (["a=it's,b"], [["a=it's"], ["a=b"]]),
        (["a=['x]', \"y,\"],{k: 'v,]'}"], [["a=['x]', \"y,\"]"], ["a={k: 'v,]'}"]]),
    ],
)  # fmt: skip
def test_every_combination_once_and_the_last_key_changes_fastest(over, expected):
    assert combinations(over) == expected


@pytest.mark.parametrize(
    "over", [["lr"], ["lr="], ["lr=1,,2"], ["=1"], ["lr=1,1"], ["lr=1", "lr=2"]]
)
def test_a_wrong_choice_is_refused_with_its_text(over):
    with pytest.raises(RecipeError, match=re.escape(over[-1])):
        combinations(over)


class Runs:
    """Commits stages instead of running them; notes what was to be run."""

    def __init__(self) -> None:
        self.started: list[tuple[float, int]] = []
        self.failing: set[float] = set()
        self.error: Exception = StageError("finetune: the loss is not finite")

    def __call__(self, workflow: Workflow, workdir: Store, console: object, **options: object):
        assert options == {"new_training": True, "within": None}
        lr, seed = workflow.recipe.finetune.lr, workflow.recipe.seed  # type: ignore[attr-defined]
        planned = workflow.plan(workdir)
        if any(p.state != "fresh" for p in planned):
            self.started.append((lr, seed))
            if lr in self.failing:
                commit_stages(workflow, workdir, {}, "finetune")
                raise self.error
            numbers = {"dev/num_examples": 277.0, "dev/score": 0.5 + 1000 * lr + seed / 100}
            commit_stages(workflow, workdir, {"score": numbers})
        return workflow.plan(workdir)


@pytest.fixture
def runs(monkeypatch) -> Runs:
    made = Runs()
    monkeypatch.setattr(Workflow, "run", lambda *arguments, **options: made(*arguments, **options))
    return made


def grid(folder: Path, *over: str):
    recipe = glue_recipe(folder).model_dump(mode="json", exclude_defaults=True)
    (folder / "recipe.yaml").write_bytes(dump_recipe(recipe))
    options = [word for text in over for word in ("--over", text)]
    workdir = str(folder / "work")
    return CliRunner().invoke(
        app, ["grid", str(folder / "recipe.yaml"), "--workdir", workdir, *options]
    )


LRS = (1e-5, 3e-5)
OVER = ("finetune.lr=1e-5,3e-5", "seed=0,1,2")
ALL = [(lr, seed) for lr in LRS for seed in range(3)]


def test_a_grid_shares_stages_and_names_the_best_median_on_dev(tmp_path, runs):
    done = grid(tmp_path, *OVER)
    assert done.exit_code == 0, done.exception
    assert runs.started == ALL
    workdir = Store(tmp_path / "work")
    counts = {name: len(workdir.folders(name)) for name in ("start", "labels", "finetune", "score")}
    assert counts == {"start": 1, "labels": 1, "finetune": 6, "score": 6}
    assert "2 of 6: finetune.lr=1e-5, seed=1" in done.output
    line = r"best median of dev/score: 0\.5400 \(0\.5300–0\.5500\) over 3 seeds, with .*lr=3e-05"
    assert re.search(line, done.output)


def test_the_same_command_runs_only_what_is_missing(tmp_path, runs):
    assert grid(tmp_path, "finetune.lr=1e-5", "seed=0,1").exit_code == 0
    runs.started.clear()
    assert grid(tmp_path, *OVER).exit_code == 0
    assert runs.started == ALL[2:]
    # A smaller grid says nothing of what else is in the workdir.
    runs.started.clear()
    done = grid(tmp_path, "finetune.lr=1e-5", "seed=0,1,2")
    assert not runs.started and "0.5200" in done.output and "0.5500" not in done.output


@pytest.mark.parametrize("kind", [StageError, RecipeError])
def test_a_combination_that_fails_stops_no_other_one_and_is_named(tmp_path, runs, kind):
    """A batch larger than the split is an error of the recipe, found after others have run."""
    runs.failing.add(1e-5)
    runs.error = kind("it cannot be done")
    done = grid(tmp_path, *OVER)
    assert runs.started == ALL
    assert isinstance(done.exception, StageError)
    assert "3 of 6 combinations failed: finetune.lr=1e-5, seed=0;" in str(done.exception)
    assert "best median of dev/score: 0.5400" in done.output


def test_a_wrong_value_is_found_before_anything_runs(tmp_path, runs):
    done = grid(tmp_path, "finetune.lr=1e-5,high")
    assert isinstance(done.exception, RecipeError) and "finetune.lr" in str(done.exception)
    assert not runs.started
