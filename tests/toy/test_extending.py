"""A toy source, stage and objective, added by the blocks of CONTRIBUTING.md alone.

The blocks are applied to a copy of the packages, and the workflow runs there on a miniature web.
"""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pyarrow.parquet as pq
import pytest

from orchestration import Dataset
from orchestration.plan import latest_record
from orchestration.storage.store import Store

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ROOMS = ("pipelines", "model", "tokenizer", "dataprep", "orchestration")
BLOCK = re.compile(
    r"^(?:New file `(?P<new>[^`]+)`|In `(?P<old>[^`]+)`, (?P<side>before|after) `(?P<line>[^`]+)`)"
    r":\n\n```(?:python)?\n(?P<code>.*?)```$",
    re.MULTILINE | re.DOTALL,
)
GOOD_POEMS = 40
SETTINGS = [
    "miniweb={num_cc3m: 100, num_cc12m: 60, num_classes: 3, num_images_per_class: 30, "
    "num_documents: 200}",
    "text_tokenizer.vocab_size=150",
    "image_tokenizer.steps=6",
    "image_tokenizer.warmup_steps=2",
    "image_tokenizer.min_usage=0.01",
    "image_tokens.row_group_rows=16",
    "pair_tokens.row_group_rows=16",
    "train.steps=6",
    "train.warmup_steps=2",
    "train.texts_per_step=16",
]


def extend(root: Path) -> int:
    """Apply the blocks of CONTRIBUTING.md to the packages below ``root``; return their number."""
    blocks = list(BLOCK.finditer((ROOT / "CONTRIBUTING.md").read_text()))
    for block in blocks:
        if block["new"]:
            (root / block["new"]).write_text(block["code"])
            continue
        path = root / block["old"]
        lines = path.read_text().splitlines(keepends=True)
        found = [i for i, line in enumerate(lines) if line.rstrip("\n") == block["line"]]
        assert len(found) == 1, f"{block['old']} has {len(found)} lines {block['line']!r}"
        lines.insert(found[0] + (block["side"] == "after"), block["code"])
        path.write_text("".join(lines))
    return len(blocks)


def beit3(packages: Path, verb: str, workdir: Path, poems: Path) -> str:
    settings = [*SETTINGS, f"sources.verse={{format: poems, file: {poems}}}"]
    done = subprocess.run(
        [
            sys.executable, "-m", "pipelines.cli", verb, "pipelines/recipes/tiny.yaml",
            "--workdir", str(workdir), *(word for s in settings for word in ("--set", s)),
        ],
        cwd=packages,
        env=os.environ | {"PYTHONPATH": str(packages), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=1200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with extended copies of the packages."""
    folder = tmp_path_factory.mktemp("packages")
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    assert extend(folder) > 0
    return folder


@pytest.fixture(scope="module")
def poems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of poems, the last of which is not UTF-8."""
    path = tmp_path_factory.mktemp("poems") / "poems.txt"
    verses = [f"the {i} red circles sleep / beside a blue square" for i in range(GOOD_POEMS)]
    path.write_bytes("\n".join(verses).encode() + b"\n\xff\xfe a damaged line of verse\n")
    return path


@pytest.fixture(scope="module")
def plan(packages: Path, poems: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return beit3(packages, "plan", tmp_path_factory.mktemp("plan") / "work", poems)


@pytest.fixture(scope="module")
def workdir(packages: Path, poems: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Workdir of a complete run; the printed summary is in ``summary.txt`` beside it."""
    workdir = tmp_path_factory.mktemp("run") / "work"
    (workdir.parent / "summary.txt").write_text(beit3(packages, "run", workdir, poems))
    return workdir


def output(workdir: Path, stage: str) -> Store:
    return Store(workdir / stage / latest_record(Store(workdir))["stages"][stage])


def test_the_plan_shows_the_new_stages(plan: str):
    assert "documents/verse" in plan and "text_lengths" in plan


@pytest.mark.exhaustive
def test_every_row_of_the_new_source_is_a_document_or_a_counted_reject(workdir: Path):
    verse = Dataset.open(output(workdir, "documents/verse"))
    assert verse.num_rows == GOOD_POEMS
    assert verse.manifest.num_rows_in == GOOD_POEMS + 1
    assert dict(verse.manifest.rejects) == {"malformed_line": 1}
    assert "beside a blue square" in verse.read(0, 1)["text"][0].as_py()


@pytest.mark.exhaustive
def test_the_output_of_the_new_stage_is_committed_and_covers_every_document(workdir: Path):
    lengths = Dataset.open(output(workdir, "text_lengths"))
    sources = [Dataset.open(output(workdir, f"documents/{name}")) for name in ("stories", "verse")]
    texts = [text for source in sources for text in source.read(0, source.num_rows)["text"]]
    assert lengths.num_rows == len(texts)
    mean = sum(len(text.as_py()) for text in texts) / len(texts)
    assert lengths.manifest.numbers["mean_chars"] == pytest.approx(mean)


@pytest.mark.exhaustive
def test_the_new_objective_is_trained_evaluated_and_summarized(workdir: Path):
    (history,) = (workdir / "pretrain").glob("*/history")
    last = pq.read_table(history).to_pylist()[-1]
    assert math.isfinite(last["loss/next"]) and 0 <= last["accuracy/next"] <= 1
    held_out = Dataset.open(output(workdir, "evaluate")).manifest.numbers
    assert held_out["num_targets/next"] == held_out["num_targets/mlm"] > 0
    assert math.isfinite(held_out["loss/next"])
    assert "Tokens after masked ones" in (workdir.parent / "summary.txt").read_text()


@pytest.mark.exhaustive
def test_mlflow_has_the_numbers_of_the_new_objective_and_stage(workdir: Path):
    client = mlflow.MlflowClient(f"sqlite:///{workdir}/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    metrics: dict[str, float] = {}
    for run in client.search_runs(experiments):
        metrics |= run.data.metrics
    assert {"loss/next", "accuracy/next", "mean_chars"} <= metrics.keys()


def test_the_loss_figure_has_a_curve_of_the_new_objective(packages: Path, tmp_path: Path):
    points = {"loss/next": ([1, 2], [3.0, 2.9]), "accuracy/next": ([1, 2], [0.1, 0.2])}
    path = tmp_path / "losses.svg"
    program = (
        "import json, sys, matplotlib; matplotlib.rcParams['svg.fonttype'] = 'none'\n"
        "from pathlib import Path\n"
        "from pipelines.pretrain.loss_figure import draw_losses\n"
        "draw_losses(json.loads(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, json.dumps(points), str(path)],
        cwd=packages,
        env=os.environ | {"PYTHONPATH": str(packages)},
        check=True,
    )
    assert "Tokens after masked ones" in path.read_text()
