"""Labels: what the network chooses from, and which examples it is trained on.

In: ``prepare/train`` and, if there is one, ``prepare/dev``. Out: ``labels.json``, the labels in the
order of the network's scores; ``samples.parquet``, the number of training samples of each row.
"""

import io
import json
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from orchestration import Context, Dataset, Stage, feeding
from orchestration.errors import StageError
from orchestration.storage.store import Store
from pipelines.finetune.task import Task

LABELS_FILE: Final = "labels.json"
SAMPLES_FILE: Final = "samples.parquet"
_COLUMNS: Final = ("example_id", "texts", "labels", "main_label")


def stage(task: Task, *, train: Stage, dev: Stage | None) -> Stage:
    """Return the stage ``labels``.

    Args:
        task: the recipe's section ``task``.
        train: ``prepare/train``.
        dev: ``prepare/dev``, if the recipe has this split.
    """
    splits = {"train": train} | ({} if dev is None else {"dev": dev})
    return Stage("labels", lambda context: run(context, task), task, feeding(**splits))


def run(context: Context, task: Task) -> None:
    """Collect the labels in one task, commit."""
    splits = {role: context.input(role) for role in context.stage.inputs}
    numbers = context.run_task(write_labels, context.folder, task, splits)
    context.commit(files=[LABELS_FILE, SAMPLES_FILE], numbers=numbers)


def write_labels(folder: Store, task: Task, splits: dict[str, Dataset]) -> dict[str, float]:
    """Write both files; return the numbers of labels, samples and unused examples.

    Raises:
        StageError: the examples have no usable labels, there are none, or ``dev`` has no labels.
    """
    tables = {name: text_columns(dataset) for name, dataset in splits.items()}
    try:
        names = task.label_names(tables)
    except ValueError as error:
        raise StageError(f"labels: {error}") from None
    if task.needs_labels and "dev" in tables and not any(tables["dev"]["labels"].to_pylist()):
        raise StageError(
            "labels: no example of the split dev has a label, so no weights can be chosen by "
            f"{task.metric}; give data.dev labels, or leave it out"
        )
    train = tables["train"]
    used = np.array(task.is_used(train, {name: i for i, name in enumerate(names)}), bool)
    samples = pc.list_value_length(train["texts"]).to_numpy() if task.by_text else 1
    samples = np.where(used, samples, 0).astype(np.int32)
    if not samples.sum():
        raise StageError(
            f"labels: none of the {train.num_rows} examples of the split train can be trained on; "
            "check its labels, and `beit3 rejects` for what was left out"
        )
    folder.write_bytes(LABELS_FILE, json.dumps(names, ensure_ascii=False, indent=0).encode())
    file = io.BytesIO()
    pq.write_table(pa.table({"num_samples": samples}), file, compression="zstd")
    folder.write_bytes(SAMPLES_FILE, file.getvalue())
    return {
        "num_labels": len(names),
        "num_samples": int(samples.sum()),
        "num_unused_examples": int((~used).sum()),
    }


def text_columns(examples: Dataset) -> pa.Table:
    """Return the examples of a split without their images."""
    return examples.read(columns=_COLUMNS)


def read_labels(labels: Dataset) -> list[str]:
    """Return the labels in the order of the network's scores."""
    names: list[str] = json.loads(labels.fetch(LABELS_FILE).read_bytes())
    return names


def read_samples(labels: Dataset) -> NDArray[np.int64]:
    """Return the number of training samples of each row of ``prepare/train``."""
    table = pq.read_table(labels.fetch(SAMPLES_FILE))
    return table["num_samples"].to_numpy().astype(np.int64)
