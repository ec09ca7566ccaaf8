"""MLflow tracking: a parent run for the workflow, a child run for each stage that runs.

The driver owns the runs. Their ids are in the store, so a restarted workflow continues the same
runs. An unreachable tracking server never stops a workflow: metrics are queued and sent later, and
the log records each failure.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from orchestration.errors import RecipeError, StageError
from orchestration.manifest import manifest_sha256
from orchestration.recipe import TrackingParams
from orchestration.storage.store import Store

logger = logging.getLogger(__name__)

RUN_FILE: Final = "mlflow_run.json"
MLFLOW_ARTIFACTS: Final = "mlflow-artifacts"
_MAX_PARAM_LENGTH: Final = 500
_MAX_BATCH: Final = 900
_MAX_WAITING: Final = 1_000_000
"Metrics queued for an unreachable server; the oldest are dropped first."
_MAX_DIGEST: Final = 36


def tracking_uri(params: TrackingParams, workdir: Store) -> str:
    """Return the tracking URI: from the recipe, else the environment, else SQLite in the workdir.

    Raises:
        RecipeError: no URI is given and the workdir is on an object store.
    """
    if chosen := params.uri or os.environ.get("MLFLOW_TRACKING_URI"):
        return chosen
    if not workdir.is_local:
        raise RecipeError(
            f"{workdir.uri}: an object store cannot hold MLflow's SQLite file; set tracking.uri to "
            "a tracking server, or to sqlite:////a/local/path.db"
        )
    return sqlite_uri(workdir)


def sqlite_uri(workdir: Store) -> str:
    """Return the tracking URI of a local workdir's own database."""
    return f"sqlite:///{workdir.native_path('mlflow.db')}"


class RunLog:
    """Writes to one MLflow run. Picklable, so a training worker can write too.

    If the server was unreachable when the run was to be opened, the next call opens it.
    """

    def __init__(self, uri: str, run_id: str | None, open_run: Callable[[], str] | None = None):
        self.uri = uri
        self.run_id = run_id
        self._open = open_run
        self._client: Any = None
        self._waiting: list[tuple[str, float, int, int]] = []

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_client": None, "_waiting": []}

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters; the keys of nested sections become dotted names."""
        from mlflow.entities import Param

        entries = [
            Param(key, str(value)[:_MAX_PARAM_LENGTH]) for key, value in _flatten(values).items()
        ]
        for i in range(0, len(entries), 100):
            self._try("parameters", params=entries[i : i + 100])

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Queue the metrics of one step; :meth:`flush` sends them."""
        now = int(time.time() * 1000)
        self._waiting += [(name, float(value), now, step) for name, value in values.items()]

    def flush(self) -> None:
        """Send the queued metrics; those that cannot be sent stay queued."""
        from mlflow.entities import Metric

        while self._waiting:
            batch = [Metric(*entry) for entry in self._waiting[:_MAX_BATCH]]
            if not self._try("metrics", metrics=batch):
                del self._waiting[:-_MAX_WAITING]
                return
            del self._waiting[:_MAX_BATCH]

    def unsent(self) -> list[tuple[str, float, int, int]]:
        """Return the queued metrics as (name, value, milliseconds since the epoch, step)."""
        return list(self._waiting)

    def send_again(self, metrics: Iterable[Sequence[Any]]) -> None:
        """Queue and send metrics that :meth:`unsent` returned in another process."""
        self._waiting += [(str(n), float(v), int(t), int(s)) for n, v, t, s in metrics]
        self.flush()

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a local file into the artifacts of the run."""
        self._do(f"{path.name}", "log_artifact", str(path), folder)

    def inputs(self, folders: Mapping[str, Store]) -> None:
        """Log the input datasets of a stage, each with the digest of its manifest."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        tags = [InputTag("mlflow.data.context", "input")]
        datasets = [
            DatasetInput(
                Dataset(
                    name=name,
                    digest=manifest_sha256(folder)[:_MAX_DIGEST],
                    source_type="local" if folder.is_local else "s3",
                    source=json.dumps({"uri": folder.uri}),
                ),
                tags,
            )
            for name, folder in folders.items()
        ]
        if datasets:
            self._do("inputs", "log_inputs", datasets)

    def finish(self, status: str) -> None:
        """End the run as FINISHED, FAILED or KILLED."""
        self.flush()
        if self._waiting:
            logger.warning("%d metrics could not be sent to %s", len(self._waiting), self.uri)
        self._do(f"the final status {status}", "set_terminated", status)

    def client(self) -> Any:
        """Return the MLflow client, made on first use."""
        if self._client is None:
            from mlflow import MlflowClient

            self._client = MlflowClient(self.uri)
        return self._client

    def _try(self, what: str, **batch: Any) -> bool:
        return self._do(what, "log_batch", **batch)

    def _do(self, what: str, method: str, *args: Any, **kwargs: Any) -> bool:
        """Call the client; log a failure of the server instead of raising it."""
        try:
            if self.run_id is None:
                assert self._open is not None
                self.run_id = self._open()
            getattr(self.client(), method)(self.run_id, *args, **kwargs)
        except Exception as error:
            logger.warning("MLflow at %s did not accept %s: %s", self.uri, what, error)
            return False
        return True


class Tracker:
    """Opens the MLflow runs of one workflow."""

    def __init__(self, params: TrackingParams, workdir: Store) -> None:
        self.uri = tracking_uri(params, workdir)
        self.experiment = params.experiment
        self.artifacts = workdir.sub(MLFLOW_ARTIFACTS)
        # An unreachable server is detected in seconds; its metrics are queued and sent later.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        if workdir.storage.endpoint_url:
            os.environ.setdefault("MLFLOW_S3_ENDPOINT_URL", workdir.storage.endpoint_url)

    def run(self, folder: Store, name: str, parent: RunLog | None = None) -> RunLog:
        """Continue the run whose id is in ``folder``, or open a new run and write its id there.

        Raises:
            StageError: MLflow is not installed correctly.
        """
        opening = partial(self._open, folder, name, parent)
        try:
            return RunLog(self.uri, opening())
        except ImportError as error:  # a retry cannot fix this
            raise StageError(
                f"MLflow is not installed correctly ({error}); install the project again, then "
                "run `beit3 doctor`"
            ) from error
        except Exception as error:
            logger.warning("MLflow at %s opened no run for %s yet: %s", self.uri, name, error)
            return RunLog(self.uri, None, opening)

    def _open(self, folder: Store, name: str, parent: RunLog | None) -> str:
        from mlflow import MlflowClient

        client = MlflowClient(self.uri)
        if folder.exists(RUN_FILE):
            record = json.loads(folder.read(RUN_FILE))
            if record["uri"] == self.uri:
                run_id = str(record["run_id"])
                before = client.get_run(run_id)
                client.update_run(run_id, status="RUNNING")
                attempt = int(before.data.tags.get("attempt", 1)) + 1
                client.set_tag(run_id, "attempt", attempt)
                client.set_tag(run_id, "resumed_from", _state_of(before, attempt - 1))
                return run_id
        tags = {"mlflow.runName": name, "attempt": "1"}
        if parent is not None and parent.run_id is not None:
            tags["mlflow.parentRunId"] = parent.run_id
        experiment_id = self._experiment_id(client)
        run_id = str(client.create_run(experiment_id, run_name=name, tags=tags).info.run_id)
        folder.write_bytes(RUN_FILE, json.dumps({"uri": self.uri, "run_id": run_id}).encode())
        return run_id

    def _experiment_id(self, client: Any) -> str:
        experiment = client.get_experiment_by_name(self.experiment)
        if experiment is not None:
            return str(experiment.experiment_id)
        location = None
        if self.uri.startswith("sqlite:"):
            location = (
                Path(self.artifacts.uri).as_uri()
                if self.artifacts.is_local
                else (self.artifacts.uri)
            )
        return str(client.create_experiment(self.experiment, artifact_location=location))


def _state_of(run: Any, attempt: int) -> str:
    ended = run.info.end_time
    when = datetime.fromtimestamp(ended / 1000, UTC).isoformat(" ", "seconds") if ended else "?"
    # MLflow still has RUNNING for a run whose process was killed.
    status = "killed" if run.info.status == "RUNNING" else run.info.status
    return f"attempt {attempt}, {status}, ended {when}"


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
