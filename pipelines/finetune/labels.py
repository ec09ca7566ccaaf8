"""Labels: what the network chooses from, and which examples it is trained on.

In: ``prepare/train`` and, if there is one, ``prepare/dev``; if nothing is trained also ``start``,
whose head scores the labels that it was trained for. Out: ``labels.json``, the labels in the order
of the network's scores; ``samples.parquet``, the number of training samples of each row.
"""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from orchestration import Context, Dataset, Stage, feeding
from orchestration.errors import StageError
from orchestration.storage.store import Store
from pipelines.finetune import start
from pipelines.finetune.task import Task

LABELS_FILE: Final = "labels.json"
SAMPLES_FILE: Final = "samples.parquet"
_START: Final = "start"
_MOST_NAMED: Final = 3


def stage(task: Task, *, train: Stage, dev: Stage | None, untrained: Stage | None = None) -> Stage:
    """Return the stage ``labels``.

    Args:
        task: the recipe's section ``task``.
        train: ``prepare/train``.
        dev: ``prepare/dev``, if the recipe has this split.
        untrained: ``start`` if its weights are evaluated as they are.
    """
    inputs = {"train": train} | ({} if dev is None else {"dev": dev})
    inputs |= {} if untrained is None else {_START: untrained}
    return Stage(
        "labels",
        lambda context: run(context, task),
        task,
        feeding(**inputs),
        requires=task.requires,
    )


def run(context: Context, task: Task) -> None:
    """Collect the labels in one task, commit."""
    splits = {role: context.input(role) for role in context.stage.inputs}
    untrained = splits.pop(_START, None)
    numbers = context.run_task(write_labels, context.folder, task, splits, untrained)
    if task.is_dense:
        # Without a training split another one stands in its place.
        names = {role: context.stage.inputs[role][0].partition("/")[2] for role in splits}
        by_name = {names[role]: dataset for role, dataset in splits.items()}
        for line in context.run_task(unlisted, context.folder, task, by_name):
            context.progress.remark(line)
    context.commit(files=[LABELS_FILE, SAMPLES_FILE], numbers=numbers)


def write_labels(
    folder: Store, task: Task, splits: Mapping[str, Dataset], untrained: Dataset | None = None
) -> dict[str, float]:
    """Write both files; return the numbers of labels, samples and unused examples.

    Args:
        folder: of the stage.
        task: the recipe's section ``task``.
        splits: the prepared examples of ``train`` and, if there is one, ``dev``.
        untrained: output of ``start`` if its weights are evaluated as they are.

    Raises:
        StageError: the examples have no usable labels, there are none, or ``dev`` has no labels.
    """
    tables = {name: text_columns(dataset, task) for name, dataset in splits.items()}
    try:
        given = None if untrained is None else start.load_labels(untrained)
        names = _given_names(given, tables) or task.label_names(tables)
    except ValueError as error:
        raise StageError(f"labels: {error}") from None
    if "dev" in tables and not task.can_score(tables["dev"]):
        truth = task.truth_name
        raise StageError(
            f"labels: the split dev has no {truth}, so no weights can be chosen by "
            f"{task.metric}; give data.dev {truth}s, or leave it out"
        )
    train = tables["train"]
    used = np.array(task.is_used(train, {name: i for i, name in enumerate(names)}), bool)
    samples = pc.list_value_length(train["texts"]).to_numpy() if task.by_text else 1
    samples = np.where(used, samples, 0).astype(np.int32)
    if untrained is None and not samples.sum():
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


def unlisted(folder: Store, task: Task, splits: Mapping[str, Dataset]) -> list[str]:
    """Return in lines which classes of the examples the network does not choose from.

    A list of classes that spells a name otherwise than the examples would go unseen.

    Args:
        folder: of the stage, with the labels.
        task: the recipe's section ``task``.
        splits: the prepared examples by the names of their splits.
    """
    names = pa.array(json.loads(folder.read(LABELS_FILE)), pa.string())
    lines = []
    for split, dataset in splits.items():
        given = pc.list_flatten(dataset.read(columns=["labels"])["labels"])
        others = pc.value_counts(given.filter(pc.invert(pc.is_in(given, names)))).to_pylist()
        others.sort(key=lambda each: (-each["counts"], each["values"]))
        if not others:
            continue
        words = [f"{each['values']!r} ({each['counts']})" for each in others[:_MOST_NAMED]]
        words += ["…"] if len(others) > _MOST_NAMED else []
        effect = "not trained on" if split == "train" else "counted as missed"
        lines.append(
            f"{split} has {task.truth_name}s of {len(others)} class{'es' * (len(others) > 1)} that "
            f"the network does not choose from, which are {effect}: {', '.join(words)}"
        )
    return lines


def _given_names(given: Sequence[str] | None, splits: Mapping[str, pa.Table]) -> list[str] | None:
    """Return the labels of a trained head; None if those of the examples are all others."""
    annotated = {
        label for table in splits.values() for some in table["labels"].to_pylist() for label in some
    }
    return list(given) if given and (not annotated or annotated & {*given}) else None


def text_columns(examples: Dataset, task: Task) -> pa.Table:
    """Return what a task reads of the examples of a split beside their images."""
    return examples.read(columns=task.columns)


def read_labels(labels: Dataset) -> list[str]:
    """Return the labels in the order of the network's scores."""
    names: list[str] = json.loads(labels.fetch(LABELS_FILE).read_bytes())
    return names


def read_samples(labels: Dataset) -> NDArray[np.int64]:
    """Return the number of training samples of each row of ``prepare/train``."""
    table = pq.read_table(labels.fetch(SAMPLES_FILE))
    return table["num_samples"].to_numpy().astype(np.int64)
