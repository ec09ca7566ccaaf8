"""MLflow tracking: a parent run for the workflow, a child run for each stage that runs.

A workflow's run may itself be a child, of a run that holds several workflows.

The driver owns the runs. Their ids are in the store, so a restarted workflow continues the same
runs. An unreachable tracking server never stops a workflow: metrics are queued and sent later, and
the log records each failure.
"""

import json
import logging
import os
import re
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from orchestration.errors import ManifestError, PipelineError, RecipeError, StageError
from orchestration.masking import masked
from orchestration.recipe import TrackingParams
from orchestration.reporting.run_log import RunLog, Tell, is_refusal
from orchestration.storage.store import Store

logger = logging.getLogger(__name__)

_PARENT: Final = "mlflow.parentRunId"
"Tag of a child run, which MLflow's pages read."
RUN_FILE: Final = "mlflow_run.json"
OF_A_RUN: Final = {"uri": str, "run_id": str}
"Keys of that file."
MLFLOW_ARTIFACTS: Final = "mlflow-artifacts"
_UNUSABLE_IN_SQLITE_URI: Final = re.compile(r"\?|%[0-9A-Fa-f]{2}")
"SQLAlchemy takes what follows a question mark for options, and decodes percent signs."


def tracking_uri(params: TrackingParams, workdir: Store) -> str:
    """Return the tracking URI: from the recipe, else the environment, else SQLite in the workdir.

    Raises:
        RecipeError: no URI is given, and the workdir is on an object store or its path cannot
            stand in a database's URI.
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
    """Return the tracking URI of a local workdir's own database.

    Raises:
        RecipeError: the path of the workdir cannot stand in a database's URI.
    """
    if found := _UNUSABLE_IN_SQLITE_URI.search(workdir.uri):
        raise RecipeError(
            f"{workdir.uri}: MLflow would keep its database elsewhere, because of {found[0]!r} in "
            "the path; choose a workdir without it, or set tracking.uri"
        )
    return f"sqlite:///{workdir.native_path('mlflow.db')}"


class Tracker:
    """Opens the MLflow runs of one workflow."""

    def __init__(self, params: TrackingParams, workdir: Store, tell: Tell = logger.warning) -> None:
        """Prepare MLflow; ``tell`` shows the user what concerns the runs."""
        self.uri = tracking_uri(params, workdir)
        self.tell = tell
        self.experiment = params.experiment
        self.artifacts = workdir.sub(MLFLOW_ARTIFACTS)
        # An unreachable server is detected in seconds; its metrics are queued and sent later.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        if workdir.storage.endpoint_url:
            os.environ.setdefault("MLFLOW_S3_ENDPOINT_URL", workdir.storage.endpoint_url)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "tell": logger.warning}  # a worker has no console

    def run(self, folder: Store, name: str, parent: RunLog | None = None) -> RunLog:
        """Continue the run whose id is in ``folder``, or open a new run and write its id there.

        Raises:
            RecipeError: the experiment was deleted, or the server refuses the run.
            StageError: MLflow is not installed correctly.
        """
        opening = partial(self._open, folder, name, parent)
        try:
            return RunLog(self.uri, opening(), opening, self.tell)
        except ImportError as error:  # a retry cannot fix this
            raise StageError(
                f"MLflow is not installed correctly ({error}); install the project again, then "
                "run `beit3 doctor`"
            ) from error
        except PipelineError:
            raise
        except Exception as error:
            if is_refusal(error):
                raise RecipeError(
                    f"MLflow at {masked(self.uri)} refuses a run of {name}: {masked(str(error))}; "
                    "correct tracking.uri or tracking.experiment"
                ) from error
            logger.warning(
                masked(f"MLflow at {self.uri} opened no run for {name} yet: {error}"),
            )
            self.tell(
                f"MLflow at {masked(self.uri)} opened no run for {name} yet; the workflow goes on, "
                "metrics are kept and sent later"
            )
            return RunLog(self.uri, None, opening, self.tell)

    def adopt(self, folder: Store, name: str, parent: RunLog) -> None:
        """Make the ended run whose id is in ``folder`` a child of another, if there is one."""
        if parent.run_id is not None and (known := self._known(folder, name)) is not None:
            RunLog(self.uri, known, tell=self.tell).tag(_PARENT, parent.run_id)

    def _open(self, folder: Store, name: str, parent: RunLog | None) -> str:
        from mlflow import MlflowClient

        client, lost = MlflowClient(self.uri), ""
        if (known := self._known(folder, name)) is not None:
            if self._continued(client, known):
                if parent is not None and parent.run_id is not None:
                    client.set_tag(known, _PARENT, parent.run_id)
                return known
            lost = known
        tags = {"mlflow.runName": name, "attempt": "1"}
        if parent is not None and parent.run_id is not None:
            tags[_PARENT] = parent.run_id
        experiment_id = self._experiment_id(client)
        run_id = str(client.create_run(experiment_id, run_name=name, tags=tags).info.run_id)
        record = {"uri": masked(self.uri), "run_id": run_id}
        folder.write_bytes(RUN_FILE, json.dumps(record).encode())
        if lost:
            self.tell(
                f"MLflow at {masked(self.uri)} no longer has the run {lost} of {name}: a new run "
                "replaces it, without the earlier points"
            )
        return run_id

    def _known(self, folder: Store, name: str) -> str | None:
        """Return the id of the run that ``folder`` had at this server before, or None."""
        if not folder.exists(RUN_FILE):
            return None
        try:
            record = folder.read_json(RUN_FILE, OF_A_RUN)
        except ManifestError:
            self.tell(
                f"{folder.uri_of(RUN_FILE)} is damaged: a new MLflow run of {name} replaces that "
                "which it named"
            )
            return None
        same = record["uri"] == masked(self.uri)  # a new password leads to the same run
        return record["run_id"] if same else None

    def _continued(self, client: Any, run_id: str) -> bool:
        """Set a run to running again; return False if it was deleted or is unknown."""
        try:
            before = client.get_run(run_id)
        except Exception as error:
            if is_refusal(error):
                return False
            raise
        if before.info.lifecycle_stage == "deleted":
            return False
        client.update_run(run_id, status="RUNNING")
        attempt = int(before.data.tags.get("attempt", 1)) + 1
        client.set_tag(run_id, "attempt", attempt)
        client.set_tag(run_id, "resumed_from", _state_of(before, attempt - 1))
        return True

    def _experiment_id(self, client: Any) -> str:
        experiment = client.get_experiment_by_name(self.experiment)
        if experiment is not None:
            if experiment.lifecycle_stage == "deleted":
                raise RecipeError(
                    f"the MLflow experiment {self.experiment!r} at {masked(self.uri)} was deleted; "
                    "restore it (`mlflow experiments restore --experiment-id "
                    f"{experiment.experiment_id}`) or set tracking.experiment to another name"
                )
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
