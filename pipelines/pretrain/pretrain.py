"""Pretrain: three token datasets → a BEiT-3 checkpoint.

In: image, text and pair tokens, both tokenizers. Out: the last checkpoint (``torch.distributed``
shards), ``network.json`` and ``history.json`` (every logged step). Each step takes exactly so many
samples of each stream as the recipe says (paper, section 2.3).
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import torch
from pydantic import AfterValidator, Field, model_validator

from model import BEiT3, BEiT3Config
from model.network.config import SIZES
from model.training import randomness
from model.training.batch import STREAMS, MicroBatch, Stream
from model.training.cost import ParallelLayout, memory_bytes, sample_shapes
from model.training.objectives import complete_loss_weights
from model.training.optimizer import adamw, cosine_lr
from model.training.step import StepResult, train_step
from orchestration import Context, Dataset
from orchestration.errors import StageError
from orchestration.params import OPERATIONAL, StageParams
from orchestration.reporting.usage import Expected
from orchestration.training import Session, TrainingParams, fit
from pipelines.pretrain.checkpoints import HISTORY_FILE, restore, save
from pipelines.pretrain.feed import Feed, FeedParams, SampleBuilder
from pipelines.pretrain.loss_figure import draw_losses
from pipelines.readers.prefetch import prefetch
from pipelines.tokens.text_tokenizer import MODEL_FILE
from tokenizer.text import TextTokenizer

FIGURE_FILE: Final = "losses.png"
ROLES: Final[Mapping[Stream, str]] = {"image": "images", "text": "texts", "pair": "pairs"}
"Input of each stream."


class NetworkParams(StageParams):
    """A named size, and what to change in it."""

    size: Literal["tiny", "small", "base", "large", "giant"] = "base"
    image_size: int | None = None
    patch_size: int | None = None
    width: int | None = None
    depth: int | None = None
    num_heads: int | None = None
    "Attention heads of a block; null keeps the named size's."
    ffn_width: int | None = None
    fusion_layers: int | None = None
    attention: Literal["shared", "decoupled"] | None = None
    subln: bool | None = None
    max_text_length: int | None = None

    @model_validator(mode="after")
    def _fits(self) -> "NetworkParams":
        self.config(vocab_size=1, num_codes=1)
        return self

    def config(self, *, vocab_size: int, num_codes: int) -> BEiT3Config:
        """Return the network's configuration."""
        assert self.size in SIZES
        changes = self.model_dump(exclude={"size"}, exclude_none=True)
        return BEiT3Config.named(self.size, vocab_size=vocab_size, num_codes=num_codes, **changes)


class Params(TrainingParams):
    """Pretraining; defaults are the paper's where it gives them."""

    network: NetworkParams = NetworkParams()
    steps: int = Field(default=1_000_000, ge=1)
    images_per_step: int = Field(default=2048, ge=0)
    texts_per_step: int = Field(default=2048, ge=0)
    pairs_per_step: int = Field(default=2048, ge=0)
    substreams: int = Field(default=256, ge=1)
    "C; every number of workers to be used must divide it."
    window: int = Field(default=8, ge=1)
    "Row groups shuffled together in a substream."
    lr: float = Field(default=1e-3, gt=0)
    min_lr: float = Field(default=1e-5, ge=0)
    warmup_steps: int = Field(default=10_000, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    weight_decay: float = 0.05
    clip: float | None = 3.0
    drop_path: float = Field(default=0.1, ge=0, lt=1)
    text_mask_share: float = Field(default=0.15, gt=0, lt=1)
    pair_text_mask_share: float = Field(default=0.5, gt=0, lt=1)
    image_mask_share: float = Field(default=0.4, gt=0, lt=1)
    pair_masking: Literal["separate", "joint"] = "separate"
    "Hide one modality of a pair, or both."
    caption_length: int = Field(default=64, ge=4)
    isolate_documents: bool = False
    "No attention crosses the documents that are packed into one text."
    jitter: float = Field(default=0.4, ge=0, lt=1)
    loss_weights: Annotated[dict[str, float], AfterValidator(complete_loss_weights)] = Field(
        default_factory=lambda: complete_loss_weights({})
    )
    "Factor of each objective's mean loss in the total; an objective that is not named has 1."
    max_skipped: int = Field(default=10, ge=1)
    "Non-finite steps in a row that end the training."
    precision: Literal["fp32", "bf16"] = "bf16"
    micro_batch: Annotated[int, OPERATIONAL] = 64
    compile: Annotated[bool, OPERATIONAL] = False
    "Compile the blocks with torch.compile: minutes at the start, faster steps on a GPU."
    activation_checkpointing: Annotated[bool, OPERATIONAL] = False
    "Recompute activations in the backward: less memory, a third more operations."

    @model_validator(mode="after")
    def _divides(self) -> "Params":
        for stream, batch in self.batch.items():
            if batch % self.substreams:
                raise ValueError(
                    f"{stream}s_per_step = {batch} is not a multiple of substreams = "
                    f"{self.substreams}"
                )
        if self.substreams % self.num_workers:
            raise ValueError(
                f"num_workers = {self.num_workers} does not divide substreams = {self.substreams}"
            )
        return self

    @property
    def batch(self) -> dict[Stream, int]:
        """Samples of each stream in a step."""
        return {
            "image": self.images_per_step,
            "text": self.texts_per_step,
            "pair": self.pairs_per_step,
        }

    def feed_params(self) -> FeedParams:
        """Return what the feed needs to know."""
        return FeedParams(**{name: getattr(self, name) for name in FeedParams.__dataclass_fields__})


def expects(params: Params, text_length: int, vocab_size: int, num_codes: int) -> Expected:
    """Say what is known beforehand: samples seen, the checkpoint's size, a worker's memory."""
    config = params.network.config(vocab_size=vocab_size, num_codes=num_codes)
    per_sample = sample_shapes(
        config,
        text_length=text_length,
        caption_length=params.caption_length,
        image_mask_ratio=params.image_mask_share,
        text_mask_ratio=params.text_mask_share,
        pair_text_mask_ratio=params.pair_text_mask_share,
    )
    layout = ParallelLayout(
        num_workers=params.num_workers,
        micro_batch=min(params.micro_batch, max(params.batch.values()) // params.num_workers),
        precision=params.precision,
        activation_checkpointing=params.activation_checkpointing,
    )
    held = memory_bytes(config, per_sample, layout)
    return Expected(
        rows=params.steps * sum(params.batch.values()),
        bytes=held["weights"] + held["optimizer state"],
        memory=sum(held.values()),
    )


@dataclass(frozen=True)
class _Job:
    """What every worker needs; sent to it."""

    params: Params
    seed: int
    datasets: Mapping[Stream, Dataset]
    text: Dataset
    config: BEiT3Config


def run(context: Context, params: Params) -> None:
    """Train with Ray Train, draw the losses, commit."""
    text = context.input("text_tokenizer")
    codes = int(context.input("image_tokenizer").manifest.params["num_codes"])
    config = params.network.config(
        vocab_size=TextTokenizer.load(text.fetch(MODEL_FILE)).num_rows, num_codes=codes
    )
    datasets = {stream: context.input(role).table("train") for stream, role in ROLES.items()}
    job = _Job(params, context.seed, datasets, text, config)
    try:  # what does not fit is said here, not by workers that start in vain
        make_feed(job, 0, params.num_workers)
    except ValueError as error:
        raise StageError(f"pretrain cannot start: {error}") from None
    checkpoint = fit(context, params, train_loop, job)
    history = json.loads(checkpoint.read(HISTORY_FILE))
    with tempfile.TemporaryDirectory() as temporary:
        figure = Path(temporary) / FIGURE_FILE
        draw_losses(history, figure)
        context.log.artifact(figure)
        context.folder.write_file(FIGURE_FILE, figure)
    num_skipped = sum(row["skipped"] for row in history)
    numbers = {"num_steps": params.steps, "num_skipped_steps": num_skipped}
    context.commit(files=context.files_of(checkpoint), numbers=numbers)


def train_loop(session: Session, job: _Job) -> None:
    """Train on one worker."""
    params = job.params
    torch.set_num_threads(session.num_threads)
    torch.manual_seed(job.seed)
    device = session.device
    network = BEiT3(job.config).to(device)
    optimizer = adamw(network, weight_decay=params.weight_decay, betas=params.betas, eps=params.eps)
    start, history = restore(session, network, optimizer)
    network.activation_checkpointing = params.activation_checkpointing
    if params.compile:
        for block in network.blocks:
            block.compile()
    feed = make_feed(job, session.rank, session.num_workers)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=params.precision == "bf16")

    def batches_of(step: int) -> list[MicroBatch]:
        made = feed.step(step)
        if device.type != "cuda":
            return made
        torch.cuda.set_device(device)  # of this thread, which would else open the first one too
        return [batch.pinned() for batch in made]

    num_skipped = 0
    for step, batches in zip(
        range(start, params.steps), prefetch(batches_of, start, params.steps), strict=True
    ):
        rate = cosine_lr(
            step,
            lr=params.lr,
            min_lr=params.min_lr,
            warmup_steps=params.warmup_steps,
            steps=params.steps,
        )
        result = train_step(
            network,
            optimizer,
            batches,
            lr=rate,
            loss_weights=params.loss_weights,
            max_grad_norm=params.clip,
            autocast=autocast,
        )
        num_skipped = num_skipped + 1 if result.skipped else 0
        if num_skipped >= params.max_skipped:
            raise StageError(
                f"{num_skipped} steps in a row up to step {step} had a gradient that is not "
                "finite; lower train.lr or train.clip"
            )
        metrics = step_metrics(result, rate)
        history.append({"step": step + 1, **metrics})
        session.show(step + 1, params.steps, metrics)
        if (step + 1) % params.checkpoint_every == 0 or step + 1 == params.steps:
            save(session, job.config, network, optimizer, step + 1, history)


def make_feed(job: _Job, rank: int, num_workers: int) -> Feed:
    """Return the feed of one worker."""
    params, text = job.params, TextTokenizer.load(job.text.fetch(MODEL_FILE))
    builders = {
        stream: SampleBuilder(
            stream, job.config, text, params.feed_params(), int(randomness.bits(job.seed, 20))
        )
        for stream in STREAMS
    }
    return Feed(
        job.datasets,
        builders,
        batch=params.batch,
        micro_batch=params.micro_batch,
        num_substreams=params.substreams,
        window=params.window,
        seed=job.seed,
        rank=rank,
        num_workers=num_workers,
    )


def step_metrics(result: StepResult, rate: float) -> dict[str, float]:
    """Return a step's numbers under their names in MLflow."""
    metrics = {f"loss/{name}": value for name, value in result.loss.items()}
    metrics |= {f"accuracy/{name}": value for name, value in result.accuracy.items()}
    return metrics | {
        "grad_norm": result.grad_norm,
        "lr": rate,
        "skipped": float(result.skipped),
    }
