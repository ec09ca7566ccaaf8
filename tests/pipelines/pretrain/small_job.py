"""A pretraining of a very small network on committed token tables, without Ray."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from dataprep.images import encode_jpeg
from dataprep.views import random_view
from model import BEiT3Config
from model.training.optimizer import cosine_lr
from orchestration.dataset import Dataset
from orchestration.storage.store import Store
from pipelines.pretrain.params import Params
from pipelines.pretrain.training_task import PretrainJob, PretrainTask
from pipelines.tokens.pair_tokens import COUNTS_FILE
from pipelines.tokens.text_tokenizer import MODEL_FILE
from pipelines.training.loop import StepOutcome
from tests.committing import commit_tables
from tokenizer.text import BOS, train

CONFIG = BEiT3Config(
    32, 2, 2, 64, image_size=32, patch_size=8, fusion_layers=1, vocab_size=60, num_codes=50,
    max_text_length=32,
)  # fmt: skip
NUM_VIEWS = 2
FP32 = torch.autocast("cpu", torch.bfloat16, enabled=False)


@dataclass
class Here:
    """What a task sees of its session."""

    rank: int = 0
    num_workers: int = 1
    num_threads: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    data_step: Callable[[int], int] = lambda step: step


def images(num: int) -> pa.Table:
    """Images with stored views and codes."""
    rng, fixed = np.random.default_rng(0), pa.FixedSizeListArray.from_arrays
    pixels = rng.integers(0, 255, (num, 40, 48, 3), dtype=np.uint8)
    views = [
        list(random_view(48, 40, 0.3, 0, f"row/{i}", index))
        for i in range(num)
        for index in range(NUM_VIEWS)
    ]
    codes = rng.integers(0, CONFIG.num_codes, num * CONFIG.num_patches * NUM_VIEWS, np.uint16)
    return pa.table(
        {
            "sample_id": [f"row/{i}" for i in range(num)],
            "source": [["coco", "sbu"][i % 2] for i in range(num)],
            "jpeg": [encode_jpeg(image, 90) for image in pixels],
            "views": fixed(pa.array(np.array(views, np.uint16).ravel()), 5 * NUM_VIEWS),
            "codes": fixed(pa.array(codes), CONFIG.num_patches * NUM_VIEWS),
        }
    )


def tables(num: int) -> dict[str, pa.Table]:
    """Token tables of the three streams; image i has 1 + i % 3 captions."""
    rng = np.random.default_rng(1)
    ids = rng.integers(4, 25, num * 16).astype(np.uint16)
    ids[rng.random(len(ids)) < 0.1] = BOS
    captions = [
        [rng.integers(4, 25, 1 + (7 * i + 3 * k) % 30).tolist() for k in range(1 + i % 3)]
        for i in range(num)
    ]
    pairs = images(num).append_column(
        "captions", pa.array(captions, pa.list_(pa.list_(pa.uint16())))
    )
    texts = pa.table({"ids": pa.FixedSizeListArray.from_arrays(pa.array(ids), 16)})
    return {"image": images(num), "text": texts, "pair": pairs}


def make_job(
    folder: Path, num_rows: int = 48, row_group_rows: int = 4, **changes: Any
) -> PretrainJob:
    """Commit the tables and return a pretraining on them."""
    words = ["a red circle, a blue square.", "the blue circle; one red square!"] * 30
    model = train(words, vocab_size=25, character_coverage=1.0)
    text = commit_tables(
        Store(folder / "text_tokenizer"), [], row_group_rows=1, files={MODEL_FILE: model}
    )
    datasets = committed(folder, num_rows, row_group_rows)
    settings = {
        "images_per_step": 8, "texts_per_step": 8, "pairs_per_step": 8, "substreams": 4,
        "shuffle_window": 2, "steps": 30, "warmup_steps": 10, "micro_batch": 4,
        "precision": "fp32", "max_caption_length": 12, "color_jitter": 0.4, "drop_path": 0.1,
    }  # fmt: skip
    settings |= changes
    settings["warmup_steps"] = min(settings["warmup_steps"], settings["steps"])
    params = Params.model_validate(settings)
    return PretrainJob(params, 3, datasets, text, CONFIG, text, None, Store(folder / "pretrain"))


def committed(folder: Path, num_rows: int, row_group_rows: int) -> Mapping[Any, Dataset]:
    """Commit the token tables in two parts each."""
    datasets = {}
    for stream, table in tables(num_rows).items():
        files = {}
        if stream == "pair":
            numbers = [len(captions) for captions in table["captions"].to_pylist()]
            counts = table.select(["source"]).append_column("num_captions", [numbers])
            file = io.BytesIO()
            pq.write_table(counts, file)
            files = {COUNTS_FILE: file.getvalue()}
        parts = [table.slice(0, num_rows // 2), table.slice(num_rows // 2)]
        datasets[stream] = commit_tables(
            Store(folder / stream), parts, row_group_rows=row_group_rows, name="train", files=files
        )
    return datasets


def take_step(task: PretrainTask, step: int, *changes: Callable[[Any], None]) -> StepOutcome:
    """Take one step as the training loop does, on batches with some changes."""
    params = task.job.params
    lr = cosine_lr(
        step, lr=params.lr, min_lr=params.min_lr, warmup_steps=params.warmup_steps,
        steps=params.steps,
    )  # fmt: skip
    batches = task.batches(task.data_step(step))
    for change in changes:
        change(batches)
    return task.step(batches, step, lr, FP32)
