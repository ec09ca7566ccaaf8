"""``task.json`` of an export: what the network was fine-tuned for, and the files that it names."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from model import BEiT3Config
from model.network.config import FORMAT, check_format
from orchestration.fingerprint import semantic
from orchestration.params import external_files
from pipelines.finetune.registry import AnyTask
from pipelines.finetune.task import Task

TASK_FILE: Final = "task.json"


def write_task(
    folder: Path, task: Task, config: BEiT3Config, metrics: Mapping[str, float]
) -> dict[str, Any]:
    """Write ``task.json`` and copy the files that the task names; return the task's parameters.

    Args:
        folder: the export.
        task: of the recipe.
        config: of the encoder.
        metrics: numbers of ``score``.
    """
    # Defaults are validated too: a number that is read again is written the same.
    parameters = semantic(type(task).model_validate(task.model_dump()))
    for file in external_files(task):
        parameters[file.key] = f"{file.key}{Path(file.location).suffix}"
        shutil.copyfile(file.location, folder / parameters[file.key])
    described = {
        "format": FORMAT,
        "task": parameters,
        "image_size": config.image_size,
        "max_text_length": config.max_text_length,
        "pixel_mean": config.pixel_mean,
        "pixel_std": config.pixel_std,
        "metrics": dict(metrics),
    }
    (folder / TASK_FILE).write_text(json.dumps(described, indent=1))
    return parameters


def read_task(text: bytes, fetch: Callable[[str], Path]) -> tuple[Task, dict[str, float]]:
    """Return the task and the metrics that :func:`write_task` wrote.

    Args:
        text: content of ``task.json``.
        fetch: returns the local path of a file beside it.

    Raises:
        ValueError: it is damaged, of a newer format, or describes no task of this version.
        StoreError: a file that the task names is missing.
    """
    try:
        described = json.loads(text)
        check_format(TASK_FILE, described)
        task: Task = TypeAdapter(AnyTask).validate_python(described["task"])
        metrics = {str(name): float(value) for name, value in described["metrics"].items()}
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{TASK_FILE}: task.{where}: {first['msg']}") from None
    except (KeyError, TypeError, AttributeError, RecursionError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{TASK_FILE} describes no task: {type(error).__name__}: {error}"
        ) from None
    files = list(external_files(task))
    if outside := [file.location for file in files if Path(file.location).name != file.location]:
        raise ValueError(
            f"{TASK_FILE} names {outside[0]}, which is not a file beside it; export the model again"
        )
    local = {file.key: str(fetch(file.location)) for file in files}
    if missing := [path for path in local.values() if not Path(path).is_file()]:
        raise ValueError(
            f"{TASK_FILE} names {missing[0]}, which is not there; copy the whole folder"
        )
    return task.model_copy(update=local), metrics
