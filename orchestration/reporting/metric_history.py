"""The points of a stage's metrics in MLflow, for reports: what a history does not hold.

Speed and memory depend on the clock, so they are in MLflow alone.
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestration.masking import masked
from orchestration.reporting.latest_run import LatestRun
from orchestration.reporting.tracking import OF_A_RUN, RUN_FILE
from orchestration.storage.store import Store

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MetricHistory:
    """Points of metrics by name, each as steps and values."""

    points: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)
    missing: str = ""
    "Why there are none, if the tracking server does not give them."


def metric_history(
    folder: Store, latest: LatestRun, is_wanted: Callable[[str], bool]
) -> MetricHistory:
    """Return the points of a stage's run, without its repetitions of a step.

    Args:
        folder: folder of the stage.
        latest: run of the workflow, which says where the tracking store is now.
        is_wanted: says of a name whether its points are read.
    """
    if not folder.exists(RUN_FILE):
        return MetricHistory(missing=f"{folder.uri} has no MLflow run")
    run_id = folder.read_json(RUN_FILE, OF_A_RUN)["run_id"]
    # An unreachable server is given up in seconds.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    try:
        from mlflow import MlflowClient

        client = MlflowClient(latest.uri)
        names = sorted(filter(is_wanted, client.get_run(run_id).data.metrics))
        return MetricHistory({n: _points(client.get_metric_history(run_id, n)) for n in names})
    except Exception as error:  # a report does without them
        logger.warning("MLflow at %s gives no metrics of %s", masked(latest.uri), run_id)
        return MetricHistory(missing=masked(f"MLflow at {latest.uri} does not give them: {error}"))


def _points(found: Sequence[Any]) -> tuple[list[float], list[float]]:
    last = {metric.step: metric.value for metric in sorted(found, key=lambda m: m.timestamp)}
    steps = sorted(last)
    return [float(step) for step in steps], [float(last[step]) for step in steps]
