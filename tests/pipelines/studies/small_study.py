"""A study of a pretraining whose stages are committed by hand instead of being run."""

from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestration.errors import StageError
from orchestration.recipe_text import dump_recipe
from orchestration.reporting.run_log import RunLog
from orchestration.reporting.tracking import Tracker
from orchestration.storage.store import Store
from orchestration.workflow import Workflow
from tests.pipelines.finetune.committed import commit_stages

BASE = """
name: own
sources:
  pairs: {{format: cc3m, list: {folder}/pairs.tsv}}
  images: {{format: imagenet21k, archive: {folder}/images.tar}}
  texts: {{format: jsonl, file: {folder}/texts.jsonl}}
download: {{contact: me@example.org}}
image_tokenizer: {{teacher: hand_crafted}}
train: {{warmup_steps: 0}}
"""
VARIANTS = {"separate": {}, "joint": "ablations/joint-masking"}


def write_study(folder: Path, **values: Any) -> Path:
    """Write a study of an own recipe, whose files are there; ``values`` go over its keys."""
    for name in ("pairs.tsv", "images.tar", "texts.jsonl"):
        (folder / name).write_text("a red square\thttp://images.test/1.jpg\n")
    (folder / "own.yaml").write_text(BASE.format(folder=folder))
    path = folder / "study.yaml"
    study = {"name": "masking", "recipe": "own.yaml", "variants": VARIANTS, "seeds": [0, 1, 2]}
    path.write_bytes(dump_recipe({**study, **values}))
    return path


class Runs:
    """Commits stages instead of running them; notes what was run, and under which MLflow run."""

    def __init__(self) -> None:
        self.started: list[tuple[str, int]] = []
        self.failing: set[tuple[str, int]] = set()
        self.adopted: list[str] = []
        self.ended: list[str] = []
        self.artifacts: list[str] = []

    def run(self, workflow: Workflow, workdir: Store, console: object, **options: Any):
        assert options["new_training"] and options["within"].run_id == "study"
        train = workflow.recipe.train  # type: ignore[attr-defined]
        if any(p.state != "fresh" for p in workflow.plan(workdir)):
            self.started.append((train.pair_masking, train.seed))
            if self.started[-1] in self.failing:
                commit_stages(workflow, workdir, {}, "pretrain")
                raise StageError("pretrain: the loss is not finite")
            commit_stages(workflow, workdir, {"evaluate": numbers(*self.started[-1])})
        return workflow.plan(workdir)


def numbers(masking: str, seed: int) -> Mapping[str, float]:
    """What an evaluation measures."""
    gap = {"separate": 0.08, "joint": 0.02}[masking] + 0.01 * seed
    return {"grounding/words/gap": gap, "accuracy/mlm": 0.5 + 0.01 * seed, "num_targets/mlm": 80.0}


def without_training(monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Replace the engine's run and MLflow."""
    made = Runs()

    class Log(RunLog):
        def finish(self, status: str) -> None:
            made.ended.append(status)

        def tag(self, name: str, value: str) -> None:
            """Keep nothing."""

        def artifact(self, path: Path, folder: str | None = None) -> None:
            made.artifacts.append(path.name)

    monkeypatch.setattr(Workflow, "run", lambda *args, **options: made.run(*args, **options))
    monkeypatch.setattr(Tracker, "run", lambda *args: Log("", "study"))
    monkeypatch.setattr(Tracker, "adopt", lambda self, folder, name, log: made.adopted.append(name))
    return made


@contextmanager
def no_file(folder: Path):
    """Check that nothing is written below a folder."""
    before = sorted(folder.rglob("*"))
    yield
    assert sorted(folder.rglob("*")) == before
