"""How long a step waits for a checkpoint that is written in the background or waited for.

    python benchmarks/checkpoint.py [--size base] [--checkpoints 4] [--folder PATH] [--smoke]

One worker trains a network on repeated batches and saves its weights and optimizer state to a local
folder. Prints the median time for which a step waits for a checkpoint of each kind, the first one
left out, since it makes the memory that the others use again; and the ratio of both.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from measuring import parse_options
from torch import nn
from train_step import DEVICE, micro_batch

from model import BEiT3, BEiT3Config
from model.training.batch import STREAMS
from model.training.objectives import complete_loss_weights
from model.training.optimizer import adamw
from model.training.step import train_step
from orchestration.checkpoint_files import newest_whole, own_files
from orchestration.checkpoint_writer import CheckpointWriter
from orchestration.session import Session
from orchestration.storage.store import Store
from pipelines.training.checkpoints import Saver
from pipelines.training.history import History


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="base")
    parser.add_argument("--checkpoints", type=int, default=4, help="of each kind")
    parser.add_argument("--steps", type=int, default=4, help="between two checkpoints")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parse_options(parser, size="tiny", checkpoints=2, steps=1)
    config = BEiT3Config.named(options.size)
    torch.manual_seed(0)
    with DEVICE:
        network = BEiT3(config)
    optimizer = adamw(network, weight_decay=0.05, betas=(0.9, 0.98), eps=1e-6)
    batches = [micro_batch(stream, config, 2) for stream in STREAMS]

    def take_steps() -> None:
        for _ in range(options.steps):
            train_step(
                network, optimizer, batches,
                lr=1e-4, loss_weights=complete_loss_weights({}), max_grad_norm=3.0,
                autocast=torch.autocast(DEVICE.type, torch.bfloat16, enabled=DEVICE.type == "cuda"),
            )  # fmt: skip

    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        waited = measured(Store(folder), network, optimizer, take_steps, options.checkpoints)
        newest = newest_whole(Store(folder))
        assert newest is not None
        size = sum(file.bytes for file in own_files(newest))
    taken = {now: statistics.median(seconds[1:]) for now, seconds in waited.items()}
    sys.stdout.write(
        f"{options.size}, {size / 1e9:.2f} GB: a step waits {taken[False]:.3f} s for a checkpoint "
        f"in the background ({waited[False][0]:.3f} s for the first one) and {taken[True]:.3f} s "
        f"for one that is waited for, {taken[True] / taken[False]:.1f}x as long\n"
    )


def measured(folder: Store, network: nn.Module, optimizer, take_steps, number: int) -> dict:
    """Return the seconds of each checkpoint, by whether it was waited for."""
    writer = CheckpointWriter(folder, 0, 1)
    session = Session(0, 1, 1, DEVICE, None, writer=writer)
    history = History(folder, log_every=1)
    saver = Saver(session, network, optimizer, history, lambda _: None)
    waited: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(number):
        for now in waited:
            take_steps()
            history.add({"skipped": 0.0}, is_last=False)
            writer.close()  # a step that still waits for the checkpoint before is another matter
            start = time.perf_counter()
            saver.save(now=now)
            waited[now].append(time.perf_counter() - start)
    writer.close()
    return waited


if __name__ == "__main__":
    main()
