"""The MLflow run of a workdir's last workflow, as the workdir's records name it."""

import os
from dataclasses import dataclass
from typing import Any

from orchestration.errors import RecipeError
from orchestration.masking import masked
from orchestration.plan import RECORD, WORKFLOWS
from orchestration.recipe_text import parse_recipe
from orchestration.reporting.tracking import OF_A_RUN, RUN_FILE, sqlite_uri
from orchestration.storage.store import Store


@dataclass(frozen=True)
class LatestRun:
    """A run on a tracking server."""

    uri: str
    "MLflow tracking URI, with the credentials of the environment if the record masks them."
    run_id: str
    "Of the workflow's run, the parent of its stages' runs."


def latest_run(workdir: Store) -> LatestRun:
    """Return the run of the workflow that last started in ``workdir`` and reached its server.

    A sqlite file in the workdir is found where the workdir lies now, even if it was moved.

    Raises:
        RecipeError: no workflow of the workdir has an MLflow run.
        ManifestError: a record is damaged.
    """
    found: list[tuple[Any, str]] = []
    for name in workdir.folders(WORKFLOWS):
        folder = workdir.sub(f"{WORKFLOWS}/{name}")
        if folder.exists(RECORD) and folder.exists(RUN_FILE):
            found.append(
                (folder.read_json(RECORD, {"started_at": (int, float)})["started_at"], name)
            )
    if not found:
        raise RecipeError(f"{workdir.uri} has no MLflow runs yet; `beit3 run` creates them")
    folder = workdir.sub(f"{WORKFLOWS}/{max(found)[1]}")
    run = folder.read_json(RUN_FILE, OF_A_RUN)
    recipe, _ = parse_recipe(folder.read("recipe.yaml"), folder.uri_of("recipe.yaml"))
    tracking = recipe.get("tracking")
    is_chosen = bool(isinstance(tracking, dict) and tracking.get("uri"))
    if run["uri"].startswith("sqlite:") and workdir.is_local and not is_chosen:
        return LatestRun(sqlite_uri(workdir), run["run_id"])
    present = os.environ.get("MLFLOW_TRACKING_URI", "")
    return LatestRun(present if masked(present) == run["uri"] else run["uri"], run["run_id"])
