"""Drawn examples of each task, and what turns them into the input of a tiny network."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import torch
from pydantic import TypeAdapter

from dataprep.images import encode_jpeg
from dataprep.schemas import EXAMPLES, PREDICTIONS
from dataprep.tasks.example import AnnotatedObject
from dataprep.tasks.label_classes import IGNORED
from dataprep.tasks.run_lengths import text_of_mask
from model import BEiT3
from model.finetuning.task_networks import TaskNetwork
from pipelines.finetune.example_builder import ExampleBuilder
from pipelines.finetune.registry import AnyTask
from pipelines.finetune.task import Task
from pipelines.finetune.texts import TextEncoder
from tests.model.networks import RELEASED
from tokenizer.text import TextTokenizer, train

WORDS = ["a", "red", "circle", "blue", "square", "the", "one", "on", "left", "of"]
ANSWERS = ["red", "blue", "2", "left of it", "circle"]
TASKS: dict[str, dict[str, Any]] = {
    "retrieval": {"name": "retrieval"},
    "captioning": {
        "name": "captioning",
        "drop_worst": {"ratio": 0.3, "after_steps": 0},
        "decoding": {"max_length": 8},
    },
    "dual": {"name": "image_classification"},
    "linear": {"name": "image_classification", "form": "linear"},
    "several labels": {"name": "image_classification", "form": "linear", "multi_label": True},
    "vqa": {"name": "vqa", "min_occurrences": 1},
    "nlvr2": {"name": "nlvr2"},
    "sentences": {"name": "text_classification"},
    "numbers": {"name": "text_classification", "scored_by": "correlation"},
    "detection": {
        "name": "detection",
        "scales": (0.8, 1.5),
        "heads": {
            "channels": 16, "hidden": 16, "num_convolutions": 1, "num_proposals": 30,
            "num_trained": 16,
        },
        "choice": {"min_score": 0.0, "most": 10},
    },
    "segmentation": {
        "name": "segmentation",
        "head": "pyramid",
        "sizes": {"window": 3, "channels": 16},
        "ratios": (0.8, 1.5),
    },
}  # fmt: skip
LABELS = {
    "retrieval": [],
    "captioning": [],
    "dual": ["a red circle", "blue square", "one_circle", "one circle", "the left"],
    "linear": ["0", "1", "2"],
    "several labels": ["0", "1", "2"],
    "vqa": ANSWERS,
    "nlvr2": ["False", "True"],
    "sentences": ["0", "1", "2"],
    "numbers": [],
    "detection": ["circle", "ring"],
    "segmentation": ["ground", "circle", "ring"],
}


def task_of(kind: str, **changes: Any) -> Task:
    """A task as a recipe gives it."""
    task: Task = TypeAdapter(AnyTask).validate_python(TASKS[kind] | changes)
    return task


@cache
def text_tokenizer() -> TextTokenizer:
    """A tokenizer whose ids the tiny networks have."""
    import sentencepiece as spm

    lines = ["a red circle on the left of one blue square"] * 40
    return TextTokenizer(
        spm.SentencePieceProcessor(model_proto=train(lines, vocab_size=25, character_coverage=1.0))
    )


@cache
def examples(kind: str, number: int) -> pa.Table:
    """Rows of ``EXAMPLES`` for a task; each label occurs."""
    task, rng = task_of(kind), np.random.default_rng(7)
    captions = dict.fromkeys(("retrieval", "captioning"), lambda i: 1 + i % 3)
    num_texts = captions | {"sentences": lambda i: 1 + i % 2}
    rows = []
    for i in range(number):
        images = [rng.integers(0, 256, (40, 44, 3), dtype=np.uint8) for _ in range(task.num_images)]
        texts = num_texts.get(kind, lambda _: task.num_texts[0])(i)
        labels = _labels(kind, i, rng)
        rows.append(
            {
                "example_id": f"{i}",
                "images": [encode_jpeg(pixels, 95) for pixels in images],
                "texts": [" ".join(rng.choice(WORDS, 2 + i % 7)) for _ in range(texts)],
                "labels": labels,
                "main_label": "",
                "objects": _objects(labels, rng) if kind == "detection" else [],
                "size": [44, 40] if task.is_dense else [],
                "label_map": _label_map(labels, rng) if kind == "segmentation" else None,
            }
        )
    return pa.Table.from_pylist(rows, EXAMPLES)


def _objects(labels: Sequence[str], rng: np.random.Generator) -> list[dict[str, Any]]:
    """A rectangle with a mask for each label, the first one a crowd now and then."""
    found = []
    for i, _ in enumerate(labels):
        mask = np.zeros((40, 44), bool)
        top, left = (int(n) for n in rng.integers(0, 20, 2))
        mask[top : top + 15, left : left + 20] = True
        is_crowd = i == 1 and bool(rng.random() < 0.3)
        text = text_of_mask(mask)
        found.append(AnnotatedObject(i, (left, top, 20, 15), 300.0, is_crowd, text)._asdict())
    return found


def _label_map(labels: Sequence[str], rng: np.random.Generator) -> bytes:
    """Bars of the classes, the last one next to pixels of none."""
    places = np.full((40, 44), IGNORED, np.uint8)
    edges = [0, *sorted(rng.integers(8, 40, len(labels) - 1).tolist()), 42]
    for i, (left, right) in enumerate(pairwise(edges)):
        places[:, left:right] = i
    return bytes(cv2.imencode(".png", places)[1])


def _labels(kind: str, i: int, rng: np.random.Generator) -> list[str]:
    names = LABELS[kind]
    if kind == "numbers":
        return [f"{i % 6 * 0.8:.2f}"]
    if kind == "detection":
        return names[i % 2 :] if i % 7 else []
    if kind == "segmentation":
        return names[: 1 + i % 3]
    if kind == "several labels":
        return names[i % 3 :][:2]
    if kind == "vqa":
        return rng.choice([names[i % 5], "unlisted", *names[:2]], 10).tolist()
    return [names[i % len(names)]] if names else []


def builder(kind: str, max_length: int = 16, labels: Sequence[str] | None = None) -> ExampleBuilder:
    """What builds the input of a tiny network of the task."""
    task = task_of(kind)
    config = replace(RELEASED, final_norm=task.final_norm)
    texts = TextEncoder(text_tokenizer(), max_length)
    return ExampleBuilder(task, config, texts, LABELS[kind] if labels is None else labels)


def network_of(built: ExampleBuilder) -> TaskNetwork:
    """A network in float64, all of whose weights differ from their initial values."""
    torch.manual_seed(0)
    made = built.task.network(BEiT3(built.config), list(built.numbers), built.texts).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return made


def predictions(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Rows of ``PREDICTIONS``."""
    empty = {name: [] for name in PREDICTIONS.names[2:]} | {"label_map": None}
    full = [{"row": i, "example_id": f"{i}"} | empty | row for i, row in enumerate(rows)]
    return pa.Table.from_pylist(full, PREDICTIONS)


def labelled(labels: Sequence[Sequence[str]], main: Sequence[str] = ()) -> pa.Table:
    """Examples that have labels alone."""
    rows = [
        {"example_id": f"{i}", "images": [], "texts": [], "labels": list(some), "main_label": ""}
        | ({"main_label": main[i]} if main else {})
        for i, some in enumerate(labels)
    ]
    return pa.Table.from_pylist(rows, EXAMPLES)
