"""Time of a step of the stage ``pretrain``, against the bare step on batches that are repeated.

    python benchmarks/pretrain_step.py [--size base] [--depth 4] [--samples 16] [--micro-batch 16]
        [--steps 30] [--rounds 3] [--cpus 2] [--gpu] [--compile] [--smoke]

The stage runs through Ray Train on drawn token data as in a workflow: feed, prefetching, metrics
in MLflow, history, heartbeat; a checkpoint is saved after the last step alone, which is not
counted. The bare step runs in a Ray task with the same threads: ``train_step`` over the batches
of the first steps, again and again. Both alternate; prints the ratio of the bare time to the
stage's, and the fraction of the stage's time in which it waits for data.
"""

import argparse
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch
from codes import images
from measuring import parse_options
from rich.console import Console

from model import BEiT3
from model.training.batch import STREAMS
from model.training.compiling import compile_blocks
from model.training.optimizer import adamw
from model.training.step import train_step
from orchestration import Context, Dataset, Output, Recipe, Slice, Stage, Workflow
from orchestration.reporting.tracking import RUN_FILE
from orchestration.storage.store import Store
from pipelines.pretrain import pretrain
from pipelines.pretrain.params import Params
from pipelines.pretrain.training_task import PretrainJob
from pipelines.tokens import (
    image_tokenizer,
    image_tokens,
    pair_tokens,
    text_tokenizer,
    text_tokens,
    vqkd_training,
)
from tokenizer.text import FIRST_PIECE, TextTokenizer, train
from tokenizer.vqkd import VQKD, VQKDConfig

TEXT_LENGTH = 128
NUM_CODES = 8192
CAPTION_LENGTHS = (8, 24)
NUM_PIECES = 1000
GROUP_ROWS = 16
NUM_BARE_BATCHES = 4
"Steps whose batches the bare step repeats."
NUM_WARM_UP = 3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="base")
    parser.add_argument("--depth", type=int)
    parser.add_argument("--samples", type=int, default=16, help="per stream and step")
    parser.add_argument("--micro-batch", type=int, default=16)
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--compile", action="store_true")
    options = parse_options(
        parser, size="tiny", depth=None, samples=4, micro_batch=4, images=128, steps=6, rounds=1
    )
    params = Params.model_validate({
        "network": {"size": options.size, "depth": options.depth},
        "steps": options.steps + NUM_WARM_UP,
        **{f"{stream}s_per_step": options.samples for stream in STREAMS},
        "substreams": 4, "shuffle_window": 2, "warmup_steps": 1, "checkpoint_every": None,
        "micro_batch": options.micro_batch, "cpus_per_worker": options.cpus,
        "use_gpu": options.gpu, "compile": options.compile, "log_every": options.steps // 3,
        "precision": "bf16" if options.gpu else "fp32",
    })  # fmt: skip
    ray.init(address="local", num_cpus=options.cpus, include_dashboard=False, log_to_driver=False)
    found: list[tuple[float, float, float]] = []
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        for round_ in range(options.rounds):
            workdir = Store(f"{folder}/work")
            flow = workflow(params, options.images, seed=round_)
            whole, waits = stage_step(flow, workdir)
            bare = ray.get(
                ray.remote(num_cpus=options.cpus, num_gpus=int(options.gpu))(bare_step).remote(
                    job(flow, workdir)
                )
            )
            found.append((bare, whole, waits))
            sys.stdout.write(f"round {round_ + 1}: bare {bare:.3f} s, stage {whole:.3f} s\n")
            sys.stdout.flush()
    bare, whole, waits = (statistics.median(values) for values in zip(*found, strict=True))
    sys.stdout.write(
        f"{options.size}, {options.samples} of each stream, {options.cpus} cores, GPU "
        f"{options.gpu}: bare step {bare:.3f} s, step of the stage {whole:.3f} s, which waits for "
        f"data in {waits:.0%} of its time; the stage runs at "
        f"{statistics.median(b / w for b, w, _ in found):.2f}x of the bare speed\n"
    )


def workflow(params: Params, num_images: int, seed: int) -> Workflow:
    """Return the stage ``pretrain`` on stages that draw their outputs; ``seed`` is its own."""
    config = params.network.config(vocab_size=1, num_codes=1)
    side, grid = vqkd_training.VQKDTrainingParams().patch_size, config.grid
    crop = {"row_group_rows": GROUP_ROWS, "flip": True, "held_out_fraction": 0}
    draws: list[tuple[str, Any, Callable[[Context], None]]] = [
        ("image_tokens", image_tokens.CropParams(**crop),
         partial(commit_rows, partial(image_rows, num_images, grid))),
        ("text_tokens", text_tokens.Params(length=TEXT_LENGTH),
         partial(commit_rows, partial(text_rows, num_images))),
        ("pair_tokens", pair_tokens.CropParams(**crop),
         partial(commit_rows, partial(pair_rows, num_images, grid))),
        ("text_tokenizer", text_tokenizer.Params(vocab_size=NUM_PIECES), commit_vocabulary),
        ("image_tokenizer", image_tokenizer.Params(image_size=side * grid),
         partial(commit_codebook, grid * side)),
    ]  # fmt: skip
    stages = [Stage(name, run, of) for name, of, run in draws]
    roles = dict(
        zip(("images", "texts", "pairs", "text_tokenizer", "image_tokenizer"), stages, strict=True)
    )
    return Workflow(
        Recipe(name="pretrain_step"), (*stages, pretrain.stage(params, seed=seed, **roles))
    )


def commit_rows(draw: Callable[[], pa.Table], context: Context) -> None:
    """Commit drawn rows as the table ``train``, and the counts of captions where there are any."""
    slices = [Slice("000000", {})]

    def process(_: Slice) -> Output:
        rows = draw()
        return Output(rows.num_rows, {"train": rows})

    context.map_slices(slices, process, row_group_rows=GROUP_ROWS)
    files = []
    rows = context.read_parts(slices, "train")
    if "captions" in rows.column_names:
        counts, file = rows.select(["source", "num_captions"]), io.BytesIO()
        pq.write_table(counts, file)
        context.folder.write_bytes(pair_tokens.COUNTS_FILE, file.getvalue())
        files = [pair_tokens.COUNTS_FILE]
    context.commit(slices, files=files)


def image_rows(number: int, grid: int) -> pa.Table:
    """Return rows of ``image_tokens``: few images again and again, with random codes."""
    few = images(min(number, 128), grid * grid)
    return pa.concat_tables([few] * (number // few.num_rows)).combine_chunks()


def pair_rows(number: int, grid: int) -> pa.Table:
    """Return rows of ``pair_tokens`` with one caption of random pieces each."""
    rng = np.random.default_rng(1)
    captions = [
        [rng.integers(FIRST_PIECE, NUM_PIECES, rng.integers(*CAPTION_LENGTHS)).tolist()]
        for _ in range(number)
    ]
    rows = image_rows(number, grid)
    rows = rows.append_column("captions", pa.array(captions, pa.list_(pa.list_(pa.uint16()))))
    rows = rows.append_column("source", pa.array(["drawn"] * number))
    return rows.append_column("num_captions", pa.array([1] * number, pa.uint16()))


def text_rows(number: int) -> pa.Table:
    """Return rows of ``text_tokens`` with random pieces."""
    rng = np.random.default_rng(2)
    ids = rng.integers(FIRST_PIECE, NUM_PIECES, number * TEXT_LENGTH).astype(np.uint16)
    return pa.table({"ids": pa.FixedSizeListArray.from_arrays(pa.array(ids), TEXT_LENGTH)})


def commit_vocabulary(context: Context) -> None:
    """Commit a text tokenizer of random words."""
    rng = np.random.default_rng(3)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(rng.choice(letters, rng.integers(2, 9))) for _ in range(4000)]
    model = train(
        [" ".join(rng.choice(words, 12)) for _ in range(3000)],
        vocab_size=NUM_PIECES,
        character_coverage=1,
    )
    context.folder.write_bytes(text_tokenizer.MODEL_FILE, model)
    context.commit(files=[text_tokenizer.MODEL_FILE])


def commit_codebook(image_size: int, context: Context) -> None:
    """Commit an image tokenizer of the network's grid, which nothing runs."""
    config = VQKDConfig(
        image_size=image_size, patch_size=16, num_codes=NUM_CODES, width=64, depth=1, num_heads=1,
        decoder_depth=1, teacher_dim=64,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / vqkd_training.MODEL_FILE
        VQKD(config).save(path)
        context.folder.write_file(vqkd_training.MODEL_FILE, path)
    context.commit(files=[vqkd_training.MODEL_FILE])


def stage_step(flow: Workflow, workdir: Store) -> tuple[float, float]:
    """Run the workflow; return the seconds of a step and the fraction of them that waits.

    Both are medians of what the stage itself logs in MLflow.
    """
    from mlflow import MlflowClient

    flow.run(workdir, Console(file=sys.stderr))
    folder = workdir.sub(flow.plan(workdir)[-1].path)
    run = json.loads(folder.read(RUN_FILE))

    def logged(name: str) -> float:
        points = MlflowClient(run["uri"]).get_metric_history(run["run_id"], f"speed/{name}")
        return statistics.median(point.value for point in points)

    return logged("step_s"), logged("data_wait_fraction")


def job(flow: Workflow, workdir: Store) -> PretrainJob:
    """Return what the stage's workers train on."""
    opened = {p.stage.name: Dataset.open(workdir.sub(p.path)) for p in flow.plan(workdir)}
    stage = flow.stages[-1]
    params, text = stage.params, opened["text_tokenizer"]
    assert isinstance(params, Params)
    vocabulary = TextTokenizer.load(text.fetch(text_tokenizer.MODEL_FILE)).num_rows
    return PretrainJob(
        params,
        stage.seed or 0,
        {s: opened[stage.inputs[role][0]].table("train") for s, role in pretrain.ROLES.items()},
        text,
        params.network.config(vocab_size=vocabulary, num_codes=NUM_CODES),
        opened["image_tokenizer"],
        None,
        workdir,
    )


def bare_step(of: PretrainJob) -> float:
    """Return the mean seconds of ``train_step`` over the batches of the first steps."""
    params = of.params
    torch.set_num_threads(params.cpus_per_worker)
    torch.manual_seed(of.seed)
    device = torch.device("cuda" if params.use_gpu else "cpu")
    network = BEiT3(of.config).to(device)
    if params.compile:
        compile_blocks(network)
    optimizer = adamw(network, weight_decay=params.weight_decay, betas=params.betas, eps=params.eps)
    feed = of.make_feed(0, 1, params.cpus_per_worker)
    steps = [feed.step(step) for step in range(NUM_BARE_BATCHES)]
    if params.use_gpu:
        steps = [[batch.pinned() for batch in batches] for batches in steps]
    start = 0.0
    for step in range(params.steps):
        if step == NUM_WARM_UP:
            start = time.perf_counter()
        train_step(
            network,
            optimizer,
            steps[step % NUM_BARE_BATCHES],
            lr=params.lr,
            loss_weights=params.loss_weights,
            max_grad_norm=params.max_grad_norm,
            autocast=torch.autocast(
                device.type, torch.bfloat16, enabled=params.precision == "bf16"
            ),
        )
    return (time.perf_counter() - start) / (params.steps - NUM_WARM_UP)


if __name__ == "__main__":
    main()
