"""The workflow of an operation, run in this process without Ray."""

import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from orchestration import Dataset
from orchestration.fingerprint import fingerprint_of
from orchestration.plan import IDENTITY, RECORD, WORKFLOWS
from orchestration.storage.store import Store
from pipelines.apply.inputs import Location
from pipelines.workflows.apply import ApplyRecipe, build_workflow
from tests.in_process import run_in_process


def recipe_of(operation: str, model: Path, *images: Path, **changes: Any) -> ApplyRecipe:
    """The recipe of a command; ``changes`` are of its inputs, or by ``apply__<name>``."""
    prefix = "apply__"
    apply = {k.removeprefix(prefix): v for k, v in changes.items() if k.startswith(prefix)}
    inputs = {k: v for k, v in changes.items() if not k.startswith(prefix)}
    locations = [Location.of(path).model_dump() for path in images]
    return ApplyRecipe.model_validate(
        {
            "name": operation,
            "operation": operation,
            "inputs": {"images": locations, "image_column": "image", **inputs},
            "apply": {"model": str(model), **apply},
        }
    )


def run(recipe: ApplyRecipe, workdir: Path) -> Dataset:
    """Run both stages, write the record, and return the output of the operation."""
    store = Store(workdir)
    folders: dict[str, Store] = {}
    for planned in build_workflow(recipe).plan(store):
        folder = store.sub(planned.path)
        folder.write_bytes(IDENTITY, json.dumps(planned.identity).encode())
        run_in_process(planned.stage, folder, folders)
        folders[planned.stage.name] = folder
    stages = {name: folder.name for name, folder in folders.items()}
    record = {"name": recipe.name, "stages": stages, "started_at": time.time()}
    path = f"{WORKFLOWS}/{fingerprint_of(stages)}/{RECORD}"
    store.write_bytes(path, json.dumps(record).encode())
    return Dataset.open(folders[recipe.operation])


def rejects_of(output: Dataset) -> pa.Table:
    return output.table("rejects").read()
