"""The contestants of ``benchmarks/feed.py``, each in processes of its own on a few cores.

All decode, cut and jitter with the same functions, and draw masks and stochastic depth for a batch
at once. They give batches of 128 images as bytes with the codes of their views.
"""

import importlib.util
import multiprocessing as mp
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from codes import COLOR_JITTER
from torch.utils.data import DataLoader, IterableDataset, default_collate, get_worker_info

from dataprep.color_jitter import NUM_UNIFORMS, jitter_color
from dataprep.images import decode_stored
from dataprep.views import View, cut
from model import BEiT3Config
from model.training.batch import STREAMS
from model.training.masking import mask_patches, num_masked_patches
from model.training.stochastic_depth import residual_scale
from orchestration import Dataset
from pipelines.pretrain.crops import StoredViewCutter
from pipelines.pretrain.feed import Feed
from pipelines.pretrain.samples import FeedParams, SampleBuilder
from pipelines.readers.prefetch import prefetch
from pipelines.tokens.image_tokens import VIEW_NUMBERS
from tokenizer.text import TextTokenizer

BATCH = 128
_STEP = 2 * BATCH
"Images of a step of the feed, which several threads build."
NUM_SUBSTREAMS = 8
WINDOW = 2
CONFIG = BEiT3Config.named("base")
PARAMS = FeedParams(0.15, 0.5, 0.4, "separate", 64, COLOR_JITTER, 0.1, False)
HAS_LITDATA = importlib.util.find_spec("litdata") is not None
_MEMORY_EVERY_S = 0.05

Epoch = Callable[[], Iterator[Any]]


@dataclass(frozen=True)
class Work:
    """What every contestant reads."""

    dataset: Dataset
    folder: Path
    "With the text tokenizer, of which the feed of images reads nothing, and LitData's chunks."
    num_images: int
    num_threads: int

    @property
    def paths(self) -> list[str]:
        """The committed Parquet files."""
        return [self.dataset.folder.native_path(part.path) for part in self.dataset.parts]


@dataclass(frozen=True)
class Measured:
    """One epoch of a contestant."""

    seconds: float
    first: float
    "Seconds to the first batch, from before anything is opened."
    memory: int
    "Largest sum of the memory of its processes, shared pages counted once; 0 if not measured."
    read: float
    "Row groups read for each one of the epoch; 0 if it is not known."


class Contestant:
    """A process that runs epochs when it is asked to."""

    def __init__(self, open_epoch: Callable[[Work], Epoch], work: Work) -> None:
        context = mp.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(open_epoch, work, theirs))
        self._process.start()

    def measure(self, *, memory: bool) -> Measured:
        """Run an epoch; sampling the memory slows it down a little."""
        self._pipe.send(memory)
        return self._pipe.recv()

    def close(self) -> None:
        """End the process."""
        self._pipe.send(None)
        self._process.join()


def _serve(open_epoch: Callable[[Work], Epoch], work: Work, pipe: Connection) -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: work.num_threads])
    torch.set_num_threads(1)
    cv2.setNumThreads(0)  # each contestant has a thread or process for each core
    epoch = open_epoch(work)
    while (memory := pipe.recv()) is not None:
        with _PeakMemory(enabled=memory) as peak:
            start = time.perf_counter()
            batches = epoch()
            next(batches)
            first = time.perf_counter() - start
            for batch in batches:
                assert batch is not None
            seconds = time.perf_counter() - start
        read = getattr(epoch, "num_reads", 0) / max(getattr(epoch, "num_groups", 0), 1)
        pipe.send(Measured(seconds, first, peak.most, read))


class _PeakMemory:
    """Samples the memory of this process and its children."""

    def __init__(self, *, enabled: bool) -> None:
        self.most, self._end = 0, threading.Event()
        self._thread = threading.Thread(target=self._sample) if enabled else None

    def __enter__(self) -> "_PeakMemory":
        if self._thread:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self._thread:
            self._thread.join()

    def _sample(self) -> None:
        while not self._end.wait(_MEMORY_EVERY_S):
            total, me = 0, psutil.Process()
            for process in (me, *me.children(recursive=True)):
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:  # it ended meanwhile
                    continue
            self.most = max(self.most, total)


class FeedEpoch:
    """An epoch of the feed, which all epochs share."""

    def __init__(self, work: Work) -> None:
        self.work, self.text = work, TextTokenizer.load(work.folder / "spm.model")
        self.feed: Feed | None = None
        self.num_reads = self.num_groups = 0
        self._step = self._reads_before = 0

    def __call__(self) -> Iterator[Any]:
        """Yield the micro-batches of each step."""
        feed = self.feed = self.feed or self._opened()
        first, self._step = self._step, self._step + self.work.num_images // _STEP
        with prefetch(feed.step, first, self._step) as steps:
            yield from steps
        reader = feed.readers["image"]
        self.num_reads, self.num_groups = reader.num_reads - self._reads_before, len(reader.groups)
        self._reads_before = reader.num_reads

    def _opened(self) -> Feed:
        return Feed(
            {"image": self.work.dataset},
            {"image": SampleBuilder("image", CONFIG, self.text, PARAMS, 0)},
            samples_per_step={stream: _STEP * (stream == "image") for stream in STREAMS},
            micro_batch=BATCH,
            num_substreams=NUM_SUBSTREAMS,
            shuffle_window=WINDOW,
            seed=0,
            rank=0,
            num_workers=1,
            num_threads=self.work.num_threads,
        )


def sample(
    jpeg: bytes, views: np.ndarray, codes: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return the network's input of a random view of an image, and its codes."""
    views = views.reshape(-1, VIEW_NUMBERS)
    chosen = int(rng.integers(len(views)))
    x, y, width, height, flip = views[chosen].tolist()
    crop = cut(decode_stored(jpeg), View(x, y, width, height, bool(flip)), CONFIG.image_size)
    jitter_color(crop, COLOR_JITTER, rng.random(NUM_UNIFORMS), crop)
    return {"pixels": crop, "codes": codes.reshape(len(views), -1)[chosen].astype(np.int64)}


def drawn(number: int) -> dict[str, torch.Tensor]:
    """Return masks and stochastic depth for a number of images, which are drawn for all at once."""
    seed, slots = int(np.random.default_rng().integers(1 << 62)), np.arange(number)
    count = num_masked_patches(CONFIG.num_patches, PARAMS.image_mask_ratio)
    scale = residual_scale(CONFIG.depth, PARAMS.drop_path, seed, 0, slots)
    assert scale is not None
    mask = mask_patches(CONFIG.grid, count, seed, 0, slots)
    return {"image_mask": torch.from_numpy(mask), "residual_scale": torch.from_numpy(scale)}


def collated(samples: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    """Return a batch of samples, with its masks and stochastic depth."""
    batch: dict[str, torch.Tensor] = default_collate(samples)
    return batch | drawn(len(samples))


class ShuffledRows(IterableDataset[dict[str, Any]]):
    """Samples of the row groups of some files, as a user of torch would write it."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield one sample at a time."""
        worker, rng = get_worker_info(), np.random.default_rng()
        files = [pq.ParquetFile(path) for path in self.paths]
        groups = [(file, i) for file in files for i in range(file.num_row_groups)]
        order = np.random.default_rng(0).permutation(len(groups))
        for index in order[worker.id :: worker.num_workers]:
            file, number = groups[index]
            rows = file.read_row_group(number, columns=["jpeg", "views", "codes"])
            views, codes = (
                rows[name].combine_chunks().flatten().to_numpy().reshape(rows.num_rows, -1)
                for name in ("views", "codes")
            )
            for i in rng.permutation(rows.num_rows):
                yield sample(rows["jpeg"][i].as_py(), views[i], codes[i], rng)


def loader_epoch(work: Work) -> Epoch:
    """A torch DataLoader with a worker process for each core, which all epochs share."""
    loader = DataLoader(
        ShuffledRows(work.paths),
        batch_size=BATCH,
        num_workers=work.num_threads,
        persistent_workers=True,
        collate_fn=collated,
    )
    return lambda: iter(loader)


def ray_epoch(work: Work) -> Epoch:
    """Ray Data with a task for each core."""
    import logging

    import ray
    import ray.data

    ray.init("local", num_cpus=work.num_threads, include_dashboard=False, log_to_driver=False)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    cutter = StoredViewCutter(CONFIG, COLOR_JITTER, 1, 2)

    def cut_rows(rows: pa.Table) -> dict[str, Any]:
        cv2.setNumThreads(0)
        crops = cutter(rows, 0, np.arange(rows.num_rows))
        masks = drawn(rows.num_rows)
        return {
            "pixels": crops.images,
            "codes": crops.codes,
            "image_mask": masks["image_mask"].numpy(),
            "residual_scale": masks["residual_scale"].movedim(-1, 0).numpy(),
        }

    def epoch() -> Iterator[Any]:
        dataset = ray.data.read_parquet(work.paths, shuffle="files", override_num_blocks=16)
        made = dataset.map_batches(cut_rows, batch_size=BATCH, batch_format="pyarrow")
        return iter(made.iter_torch_batches(batch_size=BATCH))

    return epoch


def write_litdata(rows: pa.Table, folder: Path, per_chunk: int) -> None:
    """Write rows in LitData's own format."""
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(str(folder), chunk_size=per_chunk)
    for i in range(rows.num_rows):
        views, codes = (np.array(rows[name][i].as_py(), np.uint16) for name in ("views", "codes"))
        writer[i] = {"jpeg": rows["jpeg"][i].as_py(), "views": views, "codes": codes}
    writer.done()
    writer.merge()


def litdata_epoch(work: Work) -> Epoch:
    """LitData's StreamingDataLoader with a worker process for each core, which all epochs share."""
    from litdata import StreamingDataLoader, StreamingDataset

    dataset = StreamingDataset(str(work.folder / "litdata"), shuffle=True, transform=_transformed)
    loader = StreamingDataLoader(
        dataset,
        batch_size=BATCH,
        num_workers=work.num_threads,
        persistent_workers=True,
        collate_fn=collated,
    )
    return lambda: iter(loader)


def _transformed(row: dict[str, Any], *_: object) -> dict[str, np.ndarray]:
    return sample(row["jpeg"], row["views"], row["codes"], np.random.default_rng())
