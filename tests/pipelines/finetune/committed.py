"""A fine-tuning whose stages are committed by hand, in the folders of its true fingerprints."""

import io
import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.console import Console

from orchestration import Context
from orchestration.fingerprint import canonical_json, fingerprint_of
from orchestration.manifest import MANIFEST
from orchestration.plan import IDENTITY, RECORD, WORKFLOWS
from orchestration.recipe_text import dump_recipe
from orchestration.reporting.progress import Shown, StageProgress
from orchestration.reporting.run_log import RunLog
from orchestration.storage.store import Store
from orchestration.workflow import Workflow
from pipelines.workflows.finetune import build_finetuning
from pipelines.workflows.finetune_recipe import FinetuneRecipe

FILES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "export": ("export/network.json",),
        "finetune": ("curve.png",),
        "task_report": ("report.html",),
    }
)
"Files of stages that are looked for by name."


def glue_recipe(folder: Path, **changes: Any) -> FinetuneRecipe:
    """A recipe of a classification of sentences whose files exist."""
    for name in ("train", "dev", "weights", "vocabulary"):
        if not (folder / name).exists():
            (folder / name).write_text(name)
    values = {
        "name": "glue",
        "task": {"name": "text_classification"},
        "start_from": str(folder / "weights"),
        "text_tokenizer": str(folder / "vocabulary"),
        "data": {
            split: {"format": "glue", "corpus": "rte", "file": str(folder / split)}
            for split in ("train", "dev")
        },
    }
    return FinetuneRecipe.model_validate(values | changes)


def commit(
    recipe: FinetuneRecipe, workdir: Store, numbers: Mapping[str, float], until: str | None = None
) -> Workflow:
    """Commit every stage with its files; ``score`` has the numbers. Stop before ``until``."""
    workflow = build_finetuning(recipe)
    commit_stages(workflow, workdir, {"score": numbers}, until)
    values = recipe.model_dump(mode="json")
    record = {p.stage.name: p.fingerprint for p in workflow.plan(workdir)}
    folder = workdir.sub(f"{WORKFLOWS}/{fingerprint_of(record)}")
    folder.write_bytes("recipe.yaml", dump_recipe(values))
    described = {"name": recipe.name, "stages": record, "started_at": time.time()}
    folder.write_bytes(RECORD, json.dumps(described).encode())
    return workflow


def commit_stages(
    workflow: Workflow,
    workdir: Store,
    numbers: Mapping[str, Mapping[str, float]],
    until: str | None = None,
) -> None:
    """Commit the stages of a workflow that are not committed yet."""
    folders: dict[str, Store] = {}
    for planned in workflow.plan(workdir):
        stage, folder = planned.stage, workdir.sub(planned.path)
        if stage.name == until:
            break
        folders[stage.name] = folder
        if folder.exists(MANIFEST):
            continue
        folder.write_bytes(IDENTITY, canonical_json(planned.identity))
        for path in FILES.get(stage.name, ()):
            folder.write_bytes(path, b"content")
        inputs = {name: folders[name] for name in stage.input_names}
        progress = StageProgress(stage.name, folder, Shown(Console(file=io.StringIO()), None))
        context = Context(stage, planned.fingerprint, folder, inputs, progress, RunLog("", "run"))
        context.commit(files=FILES.get(stage.name, ()), numbers=numbers.get(stage.name, {}))
