"""MLflow: a parent run for the workflow, a child run for each stage that runs.

The driver owns the runs. Their ids lie in the store, so a restarted workflow continues the same
runs. A tracking server that cannot be reached never stops a workflow: metrics wait and are sent
with the next ones, and the log says so.
"""

import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from orchestration.recipe import TrackingParams
from orchestration.store import Store

logger = logging.getLogger(__name__)

RUN_FILE: Final = "mlflow_run.json"
_MAX_PARAM_LENGTH: Final = 500
_MAX_BATCH: Final = 900


def tracking_uri(params: TrackingParams, workdir: Path) -> str:
    """Return the tracking server's URI, weakest choice last: recipe, environment, sqlite."""
    return (
        params.uri
        or os.environ.get("MLFLOW_TRACKING_URI")
        or f"sqlite:///{workdir.absolute() / 'mlflow.db'}"
    )


class RunLog:
    """Writes to one MLflow run; picklable, so that a training worker can write too."""

    def __init__(self, uri: str, run_id: str) -> None:
        self.uri = uri
        self.run_id = run_id
        self._client: Any = None
        self._waiting: list[tuple[str, float, int, int]] = []

    def __getstate__(self) -> dict[str, Any]:
        return {"uri": self.uri, "run_id": self.run_id, "_client": None, "_waiting": []}

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters; nested sections become dotted names."""
        from mlflow.entities import Param

        entries = [
            Param(key, str(value)[:_MAX_PARAM_LENGTH]) for key, value in _flatten(values).items()
        ]
        for i in range(0, len(entries), 100):
            self._try("parameters", params=entries[i : i + 100])

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log metrics of one step; sent with :meth:`flush`."""
        now = int(time.time() * 1000)
        self._waiting += [(name, float(value), now, step) for name, value in values.items()]

    def flush(self) -> None:
        """Send what waits; what cannot be sent goes on waiting."""
        from mlflow.entities import Metric

        while self._waiting:
            batch = [Metric(*entry) for entry in self._waiting[:_MAX_BATCH]]
            if not self._try("metrics", metrics=batch):
                return
            del self._waiting[:_MAX_BATCH]

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file into the run."""
        try:
            self.client().log_artifact(self.run_id, str(path), folder)
        except Exception as error:
            logger.warning("MLflow did not take %s: %s", path, error)

    def finish(self, status: str) -> None:
        """End the run as FINISHED, FAILED or KILLED."""
        self.flush()
        try:
            self.client().set_terminated(self.run_id, status)
        except Exception as error:
            logger.warning("MLflow did not end run %s: %s", self.run_id, error)

    def client(self) -> Any:
        """Return the MLflow client, made on first use."""
        if self._client is None:
            from mlflow import MlflowClient

            self._client = MlflowClient(self.uri)
        return self._client

    def _try(self, what: str, **batch: Any) -> bool:
        try:
            self.client().log_batch(self.run_id, **batch)
        except Exception as error:
            logger.warning("MLflow did not take %s of run %s: %s", what, self.run_id, error)
            return False
        return True


class Tracker:
    """Opens the runs of one workflow."""

    def __init__(self, params: TrackingParams, workdir: Path) -> None:
        self.uri = tracking_uri(params, workdir)
        self.experiment = params.experiment
        self.artifacts = (workdir / "mlflow-artifacts").absolute()
        self._client: Any = None
        self._experiment_id = ""

    def run(self, folder: Store, name: str, parent: RunLog | None = None) -> RunLog:
        """Continue the run whose id lies in ``folder``, or open a new one and put its id there."""
        client = self._connect()
        if folder.exists(RUN_FILE):
            record = json.loads(folder.read(RUN_FILE))
            if record["uri"] == self.uri:
                client.update_run(record["run_id"], status="RUNNING")
                client.set_tag(record["run_id"], "resumed", "true")
                return RunLog(self.uri, record["run_id"])
        tags = {"mlflow.runName": name}
        if parent:
            tags["mlflow.parentRunId"] = parent.run_id
        run_id = client.create_run(self._experiment_id, run_name=name, tags=tags).info.run_id
        record = {"uri": self.uri, "run_id": run_id}
        folder.write_bytes(RUN_FILE, json.dumps(record).encode())
        return RunLog(self.uri, run_id)

    def _connect(self) -> Any:
        if self._client is None:
            os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
            from mlflow import MlflowClient

            self._client = MlflowClient(self.uri)
            experiment = self._client.get_experiment_by_name(self.experiment)
            if experiment is not None:
                self._experiment_id = experiment.experiment_id
            else:
                local = self.uri.startswith("sqlite:")
                self._experiment_id = self._client.create_experiment(
                    self.experiment, artifact_location=self.artifacts.as_uri() if local else None
                )
        return self._client


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
