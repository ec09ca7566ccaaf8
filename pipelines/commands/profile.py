"""``beit3 profile``: ask a training that runs for a trace of its next steps."""

import json
import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from pipelines.commands.options import Endpoint, Region, Workdir, console
from pipelines.commands.workdir import last_record, open_workdir

if TYPE_CHECKING:
    from orchestration.storage.store import Store

_RUNS_S: Final = 120.0
"Age of a heartbeat up to which a training is taken to run."


def profile(
    workdir: Workdir,
    endpoint_url: Endpoint = None,
    region: Region = None,
    steps: Annotated[int, typer.Option(min=1, max=20, help="Number of steps to trace.")] = 5,
) -> None:
    """Trace the next steps of the training that runs in a workdir, from any machine.

    Example: beit3 profile --workdir runs/base --steps 5
    """
    from pipelines.training.profiler import FOLDER, REQUEST

    store = open_workdir(workdir, endpoint_url, region)
    for name, folder in running_trainings(store).items():
        folder.write_bytes(REQUEST, json.dumps({"steps": steps}).encode())
        console.print(
            f"{name}: a trace of the next {steps} steps is asked for; it will lie in "
            f"{folder.sub(FOLDER).uri} and in the MLflow run of the stage; https://ui.perfetto.dev "
            "opens it",
            highlight=False,
            soft_wrap=True,
        )


def running_trainings(store: "Store") -> "dict[str, Store]":
    """Return the folders of the trainings that run in a workdir, by stage name.

    Raises:
        RecipeError: there is none, or no workflow has run here.
    """
    from orchestration.errors import RecipeError
    from orchestration.reporting.progress import read_heartbeat

    folders = {
        name: store.sub(f"{name}/{fingerprint}")
        for name, fingerprint in last_record(store)["stages"].items()
    }
    beats = {name: read_heartbeat(folder) for name, folder in folders.items()}
    running = {
        name: folders[name]
        for name, beat in beats.items()
        if beat
        and beat["unit"] == "steps"
        and beat["done"] < beat["total"]
        and time.time() - beat["updated_at"] < _RUNS_S
    }
    if not running:
        raise RecipeError(
            f"{store.uri}: no training runs here at present; start one, or trace steps of the next "
            "one with --set train.profile_steps=[100,104]"
        )
    return running
