"""The pretraining task: what the training loop runs for the stage ``pretrain``."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file

from model import BEiT3, BEiT3Config
from model.network.layer_norm import norm_kernel
from model.network.starting import apply_start
from model.training import randomness
from model.training.batch import STREAMS, MicroBatch, Stream
from model.training.compiling import compile_blocks
from model.training.float8 import use_float8
from model.training.optimizer import adamw
from model.training.parallel import distribute
from model.training.step import train_step
from model.training.useful_work import Work, step_work
from orchestration import Dataset
from orchestration.session import Session
from orchestration.storage.store import Store
from pipelines.pretrain.checkpoints import NETWORK_FILE
from pipelines.pretrain.crops import NewViews
from pipelines.pretrain.feed import Feed, PairOrder
from pipelines.pretrain.params import Params
from pipelines.pretrain.sample_ids import sample_ids
from pipelines.pretrain.samples import SampleBuilder
from pipelines.pretrain.skipped_steps import SkippedSteps
from pipelines.pretrain.start_from import WEIGHTS_FILE
from pipelines.tokens.pair_tokens import COUNTS_FILE
from pipelines.tokens.text_tokenizer import MODEL_FILE
from pipelines.tokens.vqkd_training import MODEL_FILE as TOKENIZER_FILE
from pipelines.training.loop import StepOutcome
from tokenizer.text import TextTokenizer
from tokenizer.vqkd import VQKD, to_input


@dataclass(frozen=True)
class PretrainJob:
    """A pretraining, as it is sent to each worker."""

    params: Params
    seed: int
    datasets: Mapping[Stream, Dataset]
    "Token dataset of each stream."
    text: Dataset
    "Output of the stage ``text_tokenizer``."
    config: BEiT3Config
    tokenizer: Dataset | None
    "Output of the stage ``image_tokenizer``; None if the codes are another tokenizer's."
    new_views: NewViews | None
    "How a new view is drawn at each visit; None takes the stored views and codes."
    folder: Store
    "Folder of the stage: the weights to start from, and where skipped steps are recorded."

    def make_task(self, session: Session) -> "PretrainTask":
        """Build the task on a worker."""
        return PretrainTask(self, session)

    def make_feed(
        self,
        rank: int,
        num_workers: int,
        num_threads: int = 1,
        *,
        on_gpu: bool = False,
    ) -> Feed:
        """Return the feed of one worker; ``on_gpu`` says where its batches go.

        Raises:
            ValueError: batch, substreams, workers or row groups do not fit together.
        """
        params, text = self.params, TextTokenizer.load(self.text.fetch(MODEL_FILE))
        builders = {
            stream: SampleBuilder(
                stream,
                self.config,
                text,
                params.feed_params(),
                int(randomness.bits(self.seed, 20)),
                self.new_views,
                jitters_later=on_gpu,
            )
            for stream in STREAMS
        }
        return Feed(
            self.datasets,
            builders,
            samples_per_step=params.samples_per_step,
            micro_batch=params.micro_batch,
            num_substreams=params.substreams,
            shuffle_window=params.shuffle_window,
            seed=self.seed,
            rank=rank,
            num_workers=num_workers,
            num_threads=num_threads,
            pairs=self.pair_order() if params.pairs_per_step else None,
        )

    def pair_order(self) -> PairOrder:
        """Return the captions and weights of the rows of the pair stream."""
        by_caption, weights = self.params.pairs_by == "caption", self.params.source_weights
        columns = [*(["num_captions"] if by_caption else []), *(["source"] if weights else [])]
        if not columns:
            return PairOrder()
        # Millions of rows in each worker: names of sources are read as numbers, or not at all.
        counts = pq.read_table(
            self.datasets["pair"].fetch(COUNTS_FILE), columns=columns, read_dictionary=["source"]
        )
        num_captions = counts["num_captions"].to_numpy() if by_caption else None
        if not weights:
            return PairOrder(num_captions)
        sources = counts["source"].unify_dictionaries().combine_chunks()
        of_source = np.array([weights.get(name, 1.0) for name in sources.dictionary.to_pylist()])
        return PairOrder(num_captions, of_source[sources.indices.to_numpy()])


class PretrainTask:
    """Masked data modeling over three streams, on one worker."""

    def __init__(self, job: PretrainJob, session: Session) -> None:
        params = job.params
        self.job, self.device = job, session.device
        self.network = BEiT3(job.config)
        if params.start_from is not None and not session.has_checkpoint():
            apply_start(self.network, load_file(job.folder.fetch(WEIGHTS_FILE)))
        self.network = self.network.to(session.device)
        self.network.activation_checkpointing = params.activation_checkpointing
        if job.config.subln:
            session.messages.tag("norm_kernel", norm_kernel(session.device))
        if params.float8:
            use_float8(self.network)
        if params.compile:
            compile_blocks(self.network)
        dtype = torch.bfloat16 if params.precision == "bf16" else None
        reduce_dtype = torch.bfloat16 if params.reduce_dtype == "bf16" else None
        distribute(self.network, params.sharding, dtype, reduce_dtype)
        self.optimizer = adamw(
            self.network, weight_decay=params.weight_decay, betas=params.betas, eps=params.eps
        )
        self.feed = job.make_feed(
            session.rank,
            session.num_workers,
            session.num_threads,
            on_gpu=session.device.type == "cuda",
        )
        self.data_step = session.data_step
        self.skipped = SkippedSteps(job.folder, session.rank, session.num_workers)
        self.spikes = params.spikes()
        self.tokenizer: VQKD | None = None
        if job.new_views is not None and job.tokenizer is not None:
            tokenizer = VQKD.load(job.tokenizer.fetch(TOKENIZER_FILE))
            self.tokenizer = tokenizer.to(session.device).requires_grad_(False)

    def batches(self, step: int) -> list[MicroBatch]:
        """Return this worker's micro-batches, in pinned memory where there is a GPU."""
        batches = self.feed.step(step)
        return [batch.pinned() for batch in batches] if self.device.type == "cuda" else batches

    def step(
        self,
        batches: list[MicroBatch],
        step: int,
        lr: float,
        autocast: torch.autocast,
    ) -> StepOutcome:
        """Take one step."""
        params = self.job.params
        self._add_codes(batches)
        result = train_step(
            self.network,
            self.optimizer,
            batches,
            lr=lr,
            loss_weights=params.loss_weights,
            max_grad_norm=params.max_grad_norm,
            autocast=autocast,
            spikes=self.spikes,
        )
        metrics = {f"loss/{name}": value for name, value in result.loss.items()}
        metrics |= {f"accuracy/{name}": value for name, value in result.accuracy.items()}
        metrics["grad_norm"] = result.grad_norm
        metrics |= {f"grad_norm/{name}": value for name, value in result.grad_norms.items()}
        if result.fault is None:
            return StepOutcome(metrics, skipped=False)
        data_step = self.data_step(step)
        ids = partial(sample_ids, self.feed, data_step)
        return StepOutcome(
            metrics,
            skipped=result.fault != "spike",
            spiked=result.fault == "spike",
            listed_in=self.skipped.record(step, data_step, result, batches, ids),
        )

    def work(self, batches: list[MicroBatch]) -> Work:
        """Return the useful work of a step."""
        return step_work(self.job.config, batches, self.job.params.samples_per_step)

    def slow_feed(self, seconds: float) -> str:
        """Return what makes the feed faster."""
        has_new_views = self.job.new_views is not None
        lighter = ["train.codes=stored"] if has_new_views else []
        if self.job.params.color_jitter and (has_new_views or self.device.type != "cuda"):
            lighter.append("train.color_jitter=0")
        return self.feed.use.remedy(seconds, lighter)

    def _add_codes(self, batches: list[MicroBatch]) -> None:
        """Compute the codes of new views; on the device they delay no copy of the next step."""
        for batch in batches:
            if self.tokenizer is not None and batch.tokenizer_pixels is not None:
                pixels = batch.tokenizer_pixels.to(self.device, non_blocking=True)
                batch.codes, batch.tokenizer_pixels = self.tokenizer.encode(to_input(pixels)), None

    def write_files(self, folder: Path) -> None:
        """Write the network's configuration."""
        config = self.job.config.to_dict()
        (folder / NETWORK_FILE).write_text(json.dumps(config, indent=1))

    def read_files(self, folder: Path) -> None:
        """Read nothing: the state of the task is in network and optimizer."""
