"""The run of the stage ``score`` has the metrics of every task beside the published ones."""

import pytest
from mlflow import MlflowClient

from orchestration import Stage
from orchestration.manifest import read_manifest
from orchestration.params import StageParams
from orchestration.recipe import TrackingParams
from orchestration.reporting.results import stage_metrics
from orchestration.reporting.tracking import Tracker, sqlite_uri
from orchestration.storage.store import Store
from pipelines.finetune import score
from pipelines.finetune.task import Task
from pipelines.finetune.tasks.image_classification import ImageClassification
from pipelines.finetune.tasks.retrieval import Retrieval
from pipelines.finetune.tasks.text_classification import TextClassification
from pipelines.finetune.tasks.vqa import VisualQuestionAnswering
from tests.in_process import run_in_process
from tests.pipelines.finetune.predicted_splits import commit_examples, commit_predictions

pytestmark = pytest.mark.slow

LABELED = (
    [{"example_id": str(i), "texts": ["x"], "labels": ["ab"[i % 2]] * 10} for i in range(4)],
    [{"example_id": str(i), "labels": ["a", "b"], "scores": [0.7, 0.3]} for i in range(4)],
)
RETRIEVED = (
    [{"example_id": str(i), "texts": ["one", "two"]} for i in range(3)],
    [{"example_id": str(i), "features": [[1.0 * i, 1.0]] * 3} for i in range(3)],
)
TASKS: list[tuple[Task, tuple[list[dict], list[dict]], str]] = [
    (TextClassification(name="text_classification"), LABELED, "accuracy"),
    (VisualQuestionAnswering(name="vqa"), LABELED, "accuracy"),
    (
        ImageClassification(name="image_classification"),
        ([row | {"labels": row["labels"][:1]} for row in LABELED[0]], LABELED[1]),
        "accuracy",
    ),
    (Retrieval(name="retrieval"), RETRIEVED, "image_to_text/recall_at_1"),
]


def nothing(name: str) -> Stage:
    return Stage(name, lambda context: None, StageParams())


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """A workdir with one database, as MLflow takes seconds to create it."""
    return Store(tmp_path_factory.mktemp("work"))


@pytest.mark.parametrize(("task", "rows", "metric"), TASKS, ids=[t[0].name for t in TASKS])
def test_the_run_of_a_score_has_every_number_under_its_name(store, task, rows, metric, monkeypatch):
    monkeypatch.setattr("orchestration.reporting.run_log.RunLog.artifact", lambda *_: None)
    workdir = store.sub(task.name)
    examples = commit_examples(workdir.sub("prepare"), rows[0])
    predictions = commit_predictions(workdir.sub("predict"), rows[1])
    stage = score.stage(
        task,
        predictions={"test": nothing("predict/test")},
        examples={"test": nothing("prepare/test")},
        published={f"test/{metric}": 0.75},
    )
    folder = workdir.sub("score/0123456789abcdef")
    inputs = {"predict/test": predictions.folder, "prepare/test": examples.folder}
    run_in_process(stage, folder, inputs)
    manifest = read_manifest(folder)
    assert {f"test/{metric}", f"published/test/{metric}"} < manifest.numbers.keys()

    told: list[str] = []
    log = Tracker(TrackingParams(), store, told.append).run(folder, stage.name)
    log.metrics(stage_metrics(manifest), step=0)
    log.finish("FINISHED")
    assert log.run_id is not None
    logged = MlflowClient(sqlite_uri(store)).get_run(log.run_id).data.metrics
    assert logged == stage_metrics(manifest)
    assert not told
