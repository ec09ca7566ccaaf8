"""A fine-tuning of a tiny network on a few images, run as a process that can be killed.

    python -m tests.crashes.finetuning INPUTS WORKDIR TRACES OPTIONS

OPTIONS is JSON: ``finetune`` has changes of this section of the recipe, ``task`` its task (classes
by default, or another key of ``TASKS``), ``kill_at`` the steps at which the second worker kills
itself, once each. Each step that a worker starts adds a line to TRACES, outside the store.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console

from dataprep.images import encode_jpeg
from orchestration.session import Session
from orchestration.storage.store import Store
from pipelines.finetune import finetune
from pipelines.finetune.finetune_task import FinetuneJob, FinetuneTask
from pipelines.pretrain import export
from pipelines.workflows.finetune import build_finetuning
from pipelines.workflows.finetune_recipe import FinetuneRecipe
from tests.line_training import slowly, traced
from tests.model.networks import RELEASED, network
from tokenizer.text import FILE_NAME, TextTokenizer, train

COLORS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
FINETUNE: dict[str, Any] = {
    "steps": 40, "warmup_steps": 4, "batch_size": 8, "micro_batch": 4, "substreams": 4,
    "lr": 1e-3, "precision": "fp32", "evaluations": 5, "num_workers": 2, "checkpoint_every": 8,
    "keep_checkpoints": 9, "log_every": 1, "augment": {"min_crop_scale": 0.5},
}  # fmt: skip
"The dev split is evaluated after every eighth step, as a checkpoint is saved."
TASKS: dict[str, dict[str, Any]] = {
    "image_classification": {"name": "image_classification", "form": "dual"},
    "detection": {
        "name": "detection", "scales": (0.8, 1.25), "choice": {"min_score": 0.0, "most": 10},
        "heads": {"channels": 16, "hidden": 16, "num_convolutions": 1, "num_proposals": 30,
                  "num_trained": 16},
    },
    "segmentation": {
        "name": "segmentation", "head": "pyramid", "sizes": {"channels": 16},
        "ratios": (0.8, 1.25),
    },
    "mask2former": {
        "name": "segmentation", "head": "mask2former", "ratios": (0.8, 1.25),
        "sizes": {
            "adapter": {"num_heads": 4, "channels": 8},
            "masks": {
                "width": 32, "num_heads": 4, "pixel_layers": 1, "query_layers": 2,
                "pixel_hidden": 16, "query_hidden": 16, "num_queries": 8, "num_points": 64,
            },
        },
    },
}  # fmt: skip


def write_inputs(folder: Path, num_train: int = 30, num_dev: int = 15) -> None:
    """Draw the images of both splits, and write an export to start from."""
    rng = np.random.default_rng(1)
    (folder / "images").mkdir(parents=True)
    names = list(COLORS)
    for split, number in (("train", num_train), ("dev", num_dev)):
        rows = []
        for i in range(number):
            noise = rng.integers(-60, 60, (40, 40, 3))
            pixels = (np.array(COLORS[names[i % 3]]) + noise).clip(0, 255).astype(np.uint8)
            image = f"{split}-{i}.jpg"
            (folder / "images" / image).write_bytes(encode_jpeg(pixels, 95))
            # Some labels are wrong, so that the metric rises and falls.
            rows.append({"image": image, "label": names[(i + (i % 5 == 0)) % 3]})
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / f"{split}.json").write_text(json.dumps(as_objects(rows)))
        write_label_maps(folder, split, rows)
    started = folder / "start"
    started.mkdir()
    words = ["red green blue"] * 40
    (started / FILE_NAME).write_bytes(train(words, vocab_size=13, character_coverage=1.0))
    rows_of_text = TextTokenizer.load(started / FILE_NAME).num_rows
    export.write_network(started, network(replace(RELEASED, vocab_size=rows_of_text)))


def write_label_maps(folder: Path, split: str, rows: Sequence[Mapping[str, str]]) -> None:
    """Write the images of a split once more, and label maps of one class with a border of none."""
    images, masks = folder / "segmented" / split / "images", folder / "segmented" / split / "masks"
    images.mkdir(parents=True)
    masks.mkdir()
    for row in rows:
        (images / row["image"]).write_bytes((folder / "images" / row["image"]).read_bytes())
        labels = np.full((40, 40), 255, np.uint8)
        labels[2:38, 2:38] = [*COLORS].index(row["label"])
        (masks / row["image"]).with_suffix(".png").write_bytes(cv2.imencode(".png", labels)[1])
    (folder / "classes.csv").write_text("".join(f"{name}\n" for name in ("name", *COLORS)))


def as_objects(rows: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Return the images as COCO's annotations; each is one object to its border."""
    names = list(COLORS)
    return {
        "images": [
            {"id": i, "file_name": row["image"], "width": 40, "height": 40}
            for i, row in enumerate(rows)
        ],
        "annotations": [
            {
                "id": i, "image_id": i, "category_id": names.index(row["label"]),
                "bbox": [2, 2, 36, 36], "segmentation": [[2, 2, 38, 2, 38, 38, 2, 38]],
            }
            for i, row in enumerate(rows)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
    }  # fmt: skip


def recipe(inputs: Path, task: str = "image_classification", **changes: Any) -> FinetuneRecipe:
    """Return a recipe on these inputs; ``changes`` are those of its section ``finetune``."""
    files: dict[str, Any] = {"images": str(inputs / "images"), "slice_rows": 10}
    splits = ("train", "dev")
    if task == "detection":
        files["format"] = "coco_instances"
        data = {split: files | {"annotations": str(inputs / f"{split}.json")} for split in splits}
        changes["augment"] = {}
    elif TASKS[task]["name"] == "segmentation":
        data = {
            split: {
                "format": "label_folders", "slice_rows": 10, "classes": str(inputs / "classes.csv"),
                **{kind: str(inputs / "segmented" / split / kind) for kind in ("images", "masks")},
            }
            for split in splits
        }  # fmt: skip
        changes["augment"] = {}
    else:
        files["format"] = "own_labels"
        data = {split: files | {"file": str(inputs / f"{split}.jsonl")} for split in splits}
    return FinetuneRecipe.model_validate(
        {
            "name": "toy",
            "cluster": {"num_cpus": 3, "object_store_mb": 128},
            "task": TASKS[task],
            "start_from": str(inputs / "start"),
            "data": data,
            "finetune": FINETUNE | changes,
        }
    )


@dataclass(frozen=True)
class TracedJob(FinetuneJob):
    """A fine-tuning that records its steps, and of which a worker may be killed."""

    traces: Path = Path()
    kill_at: Sequence[int] = ()

    def make_task(self, session: Session) -> "TracedTask":
        return TracedTask(self, session)


class TracedTask(FinetuneTask):
    def __init__(self, job: TracedJob, session: Session) -> None:
        super().__init__(job, session)
        self.traced_job, self.rank = job, session.rank

    def step(self, batches: Any, step: int, *arguments: Any) -> Any:
        traces = self.traced_job.traces
        slowly(traces, step, self.rank)
        reached = [s for s, rank, _ in traced(traces) if (s, rank) == (step, 1)]
        if self.rank == 1 and step in self.traced_job.kill_at and len(reached) == 1:
            time.sleep(0.3)  # the other worker waits in this step
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(batches, step, *arguments)


def main() -> None:
    """Run the workflow once, up to the score."""
    inputs, workdir, traces, text = sys.argv[1:5]
    options: Mapping[str, Any] = json.loads(text)
    job = partial(TracedJob, traces=Path(traces), kill_at=options.get("kill_at", ()))
    finetune.FinetuneJob = job  # type: ignore[assignment, misc]
    made = recipe(
        Path(inputs), options.get("task", "image_classification"), **options.get("finetune", {})
    )
    workflow = build_finetuning(made)
    workflow.run(Store(workdir), Console(file=sys.stdout, soft_wrap=True), until="score")


if __name__ == "__main__":
    main()
