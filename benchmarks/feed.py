"""Images per second of the feed, against a torch DataLoader and Ray Data that do the same work.

    python benchmarks/feed.py [--images 4096] [--cpus 2] [--rounds 3] [--smoke]

Each contestant reads the same committed Parquet files, decodes each JPEG, cuts a stored view of it
at 224 pixels and jitters its colors with the same functions, and gives batches of 128 as bytes. The
feed draws masks and stochastic depth as well. The DataLoader has a worker process for each core and
reads whole shuffled row groups; Ray Data has a task for each core. Contestants alternate; prints
ratios to the faster peer, and of the feed the time to the first step, the bytes of the row groups
that it holds, and the row groups it reads for each one that an epoch needs.
"""

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data
import torch
from codes import COLOR_JITTER, images
from measuring import alternating, parse_options
from tokens import committed
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from model import BEiT3Config
from model.training.batch import STREAMS
from orchestration import Dataset
from orchestration.storage.store import Store
from pipelines.pretrain.crops import StoredViewCutter
from pipelines.pretrain.feed import Feed
from pipelines.pretrain.samples import FeedParams, SampleBuilder
from pipelines.readers.prefetch import prefetch
from tokenizer.text import TextTokenizer, train

BATCH = 128
NUM_SUBSTREAMS = 8
WINDOW = 2
CONFIG = BEiT3Config.named("base")
PARAMS = FeedParams(0.15, 0.5, 0.4, "separate", 64, COLOR_JITTER, 0.1, False)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parse_options(parser, images=512, rounds=1)
    torch.set_num_threads(1)
    ray.init(num_cpus=options.cpus, include_dashboard=False, log_to_driver=False)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        dataset = written(Store(folder), options.images)
        paths = [dataset.folder.native_path(part.path) for part in dataset.parts]
        steps, text = options.images // BATCH, tokenizer(Path(folder))
        feed = make_feed(dataset, text, options.cpus)
        start = time.perf_counter()
        feed.step(0)
        first = time.perf_counter() - start
        seconds = alternating(
            options.rounds,
            lambda: consumed(prefetch(make_feed(dataset, text, options.cpus).step, 0, steps)),
            lambda: consumed(loaded(paths, options.cpus)),
            lambda: consumed(from_ray(paths)),
        )
        for step in range(steps):
            feed.step(step)
    ours, torchs, rays = (options.images / taken for taken in seconds)
    reader = feed.readers["image"]
    sys.stdout.write(
        f"{options.cpus} cores: feed {ours:.0f} images/s, DataLoader {torchs:.0f}, Ray Data "
        f"{rays:.0f}: {ours / max(torchs, rays):.2f}x of the faster peer\n"
        f"first step {first:.2f} s, row groups held {reader.num_bytes / 1e6:.0f} MB, "
        f"{reader.num_reads / len(reader.groups):.2f}x of the epoch's row groups read\n"
    )


def written(store: Store, number: int) -> Dataset:
    """Commit rows of ``image_tokens`` in row groups of 64."""
    few = images(min(number, 256), CONFIG.num_patches)
    rows = pa.concat_tables([few] * (number // few.num_rows)).combine_chunks()
    return committed(store.sub("images"), rows, "train", 64).table("train")


def tokenizer(folder: Path) -> TextTokenizer:
    """Return a text tokenizer, of which the feed of images reads nothing."""
    path = folder / "spm.model"
    path.write_bytes(train(["a b c d e"] * 9, vocab_size=9, character_coverage=1))
    return TextTokenizer.load(path)


def make_feed(dataset: Dataset, text: TextTokenizer, num_threads: int) -> Feed:
    """Return a feed of images alone."""
    return Feed(
        {"image": dataset},
        {"image": SampleBuilder("image", CONFIG, text, PARAMS, 0)},
        samples_per_step={stream: BATCH * (stream == "image") for stream in STREAMS},
        micro_batch=32,
        num_substreams=NUM_SUBSTREAMS,
        shuffle_window=WINDOW,
        seed=0,
        rank=0,
        num_workers=1,
        num_threads=num_threads,
    )


def consumed(batches: Iterator[Any]) -> None:
    """Take every batch."""
    for batch in batches:
        assert batch is not None


class ShuffledRows(IterableDataset[dict[str, Any]]):
    """Samples of the row groups of some files, as a user of torch would write it."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths
        self.cutter = StoredViewCutter(CONFIG, COLOR_JITTER, 1, 2)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield one sample at a time."""
        worker = get_worker_info()
        files = [pq.ParquetFile(path) for path in self.paths]
        groups = [(file, i) for file in files for i in range(file.num_row_groups)]
        order = np.random.default_rng(0).permutation(len(groups))
        for index in order[worker.id :: worker.num_workers]:
            file, number = groups[index]
            rows = file.read_row_group(number)
            for i in np.random.default_rng(index).permutation(rows.num_rows):
                crops = self.cutter(rows.slice(i, 1), 0, np.array([i]))
                assert crops.codes is not None
                yield {"pixels": crops.images[0], "codes": crops.codes[0]}


def loaded(paths: list[str], cpus: int) -> Iterator[Any]:
    """Yield batches of a DataLoader with a process for each core."""
    return iter(DataLoader(ShuffledRows(paths), batch_size=BATCH, num_workers=cpus))


def from_ray(paths: list[str]) -> Iterator[Any]:
    """Yield batches of Ray Data."""
    cutter = StoredViewCutter(CONFIG, COLOR_JITTER, 1, 2)

    def cut(rows: pa.Table) -> dict[str, Any]:
        crops = cutter(rows, 0, np.arange(rows.num_rows))
        return {"pixels": crops.images, "codes": crops.codes}

    dataset = ray.data.read_parquet(paths, shuffle="files", override_num_blocks=16)
    return iter(
        dataset.map_batches(cut, batch_size=BATCH, batch_format="pyarrow").iter_torch_batches(
            batch_size=BATCH
        )
    )


if __name__ == "__main__":
    main()
