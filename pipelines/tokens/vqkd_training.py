"""VQ-KD training: parameters, and the task that the training loop runs for ``image_tokenizer``.

The codebook's statistics are summed over workers and its random choices are drawn from (seed,
step). So the codebook is the same for any number of workers, and after a resume.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Self

import numpy as np
import torch
import torch.distributed as dist
from pydantic import Field, model_validator
from torch import Tensor, nn

from model.training import randomness
from model.training.optimizer import adamw
from model.training.order import Order
from model.training.useful_work import Work
from orchestration import Dataset
from orchestration.params import EXTERNAL_FILE, OR_URI
from orchestration.session import Session
from orchestration.storage.remote_files import with_local_files
from orchestration.storage.store import Store
from orchestration.training import Steps
from pipelines.readers.kept_images import KeptImages, cut_views
from pipelines.training.loop import StepOutcome
from pipelines.training.params import (
    Lr,
    MinLr,
    Substreams,
    TrainingLoopParams,
    WarmupSteps,
    WeightDecay,
)
from tokenizer.code_usage import CodeCounts
from tokenizer.teachers import TeacherName, make_teacher
from tokenizer.vqkd import VQKD, VQKDConfig, to_input

MODEL_FILE: Final = "vqkd.pt"
COUNTS_FILE: Final = "code_counts.npy"
"Number of patches of each source and code in the epoch so far; (sources, codes) float64."
GROUP_ROWS: Final = 64
SHUFFLE_WINDOW: Final = 32
"Runs of images that a substream shuffles together: a corpus may be sorted by class."
_KMEANS_BATCHES: Final = 8


class VQKDTrainingParams(TrainingLoopParams):
    """The tokenizer and its training; defaults are BEiT v2's."""

    teacher: TeacherName = "clip"
    "Name of the frozen teacher whose features the decoder predicts."
    teacher_weights: Annotated[str | None, EXTERNAL_FILE, OR_URI] = None
    "Path or URI of the teacher's weights; null takes them from the Hugging Face hub."
    image_size: int = 224
    "Side of the tokenizer's input image in pixels."
    patch_size: int = 16
    "Side of a patch in pixels."
    width: int = 768
    "Width of encoder and decoder."
    depth: int = 12
    "Number of encoder blocks."
    num_heads: int = 12
    "Number of attention heads of encoder and decoder."
    decoder_depth: int = 3
    "Number of decoder blocks."
    num_codes: int = Field(default=8192, ge=2, le=65_536)
    "Number of codes in the codebook; a code must fit 16 bits."
    code_dim: int = 32
    "Dimension of a codebook entry."
    ema_decay: float = Field(default=0.99, gt=0, lt=1)
    "Decay per step of the codebook's exponential moving averages."
    dead_code_threshold: float = Field(default=0.01, ge=0)
    "Usage, as a fraction of an even share, below which a code is replaced; 0 never replaces one."
    kmeans: bool = True
    "Start the codebook from k-means over the first batches; false starts from random codes."
    steps: Steps = 250_000
    batch_size: int = Field(default=512, ge=1)
    "Number of images in a step, over all workers."
    lr: Lr = 2e-4
    min_lr: MinLr = 1e-5
    warmup_steps: WarmupSteps = 25_000
    weight_decay: WeightDecay = 1e-4
    substreams: Substreams = 8
    min_crop_scale: float = Field(default=0.08, gt=0, le=1)
    "Smallest fraction of an image's area that a crop covers."

    @model_validator(mode="after")
    def _substreams_divide_batch(self) -> Self:
        self.check_substreams(batch_size=self.batch_size)
        return self

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self.config(teacher_dim=1)
        return self

    def config(self, teacher_dim: int) -> VQKDConfig:
        """Return the tokenizer's configuration for a teacher with features of ``teacher_dim``."""
        names = (
            "image_size",
            "patch_size",
            "width",
            "depth",
            "num_heads",
            "decoder_depth",
            "num_codes",
            "code_dim",
            "ema_decay",
            "dead_code_threshold",
            "kmeans",
        )
        return VQKDConfig(**{name: getattr(self, name) for name in names}, teacher_dim=teacher_dim)

    def teacher_network(self) -> nn.Module:
        """Return the frozen teacher."""
        weights = Path(self.teacher_weights) if self.teacher_weights else None
        return make_teacher(self.teacher, self.image_size // self.patch_size, weights)


@dataclass(frozen=True)
class VQKDJob:
    """A VQ-KD training, as it is sent to each worker."""

    params: VQKDTrainingParams
    folder: Store
    "Folder of the stage."
    seed: int
    flip: bool
    "Whether half of the crops are mirrored."
    kept: Sequence[Dataset]
    "Tables of curation."
    images: Sequence[Dataset]
    "Images datasets that curation read."
    sources: list[str]
    "Name of the source of each of ``images``."

    def make_task(self, session: Session) -> "VQKDTask":
        """Build the task on a worker."""
        return VQKDTask(self, session)


class VQKDTask:
    """Distillation of a frozen teacher into the tokenizer, on one worker."""

    spikes = None

    def __init__(self, job: VQKDJob, session: Session) -> None:
        params = job.params
        self.job, self.device = job, session.device
        teacher: Any = with_local_files(params, job.folder).teacher_network()
        self.teacher: nn.Module = teacher.to(session.device)
        self.network = VQKD(params.config(teacher.dim)).to(session.device)
        self.optimizer = adamw(
            self.network, weight_decay=params.weight_decay, betas=(0.9, 0.99), eps=1e-8
        )
        self.replica = _replicated(self.network)
        # The row groups of a worker's windows stay in memory, so each is read about once an epoch.
        keep = num_runs_held(params.substreams, session.num_workers)
        self.images = KeptImages(job.kept, job.images, ["sample_id", "jpeg"], keep)
        total = len(self.images)
        self.order = Order(
            self.images.row_groups(GROUP_ROWS),
            batch=params.batch_size,
            num_substreams=params.substreams,
            shuffle_window=SHUFFLE_WINDOW,
            seed=int(randomness.bits(job.seed, 10)),
        )
        # Consecutive slots for each worker, so that features gathered over workers are in the
        # same order as on a single worker.
        self.slots = np.arange(params.batch_size).reshape(session.num_workers, -1)[session.rank]
        self.steps_per_epoch = max(total // params.batch_size, 1)
        self.counts = self._new_counts()

    def _new_counts(self) -> CodeCounts:
        return CodeCounts(self.job.params.num_codes, len(self.job.sources))

    def batches(self, step: int) -> tuple[Tensor, Tensor]:
        """Return this worker's crops, (B, 3, H, W) in [-1, 1], and their sources, (B,) long."""
        params, numbers = self.job.params, self.order.samples(step, self.slots)[0]
        crops = cut_views(
            self.images,
            numbers,
            min_crop_scale=params.min_crop_scale,
            seed=self.job.seed,
            view=step,
            size=params.image_size,
            flip=self.job.flip,
        )
        return to_input(crops), torch.from_numpy(self.images.locations(numbers)[0])

    def step(
        self,
        batches: tuple[Tensor, Tensor],
        step: int,
        lr: float,
        autocast: torch.autocast,
    ) -> StepOutcome:
        """Take one step; a non-finite gradient changes neither weights nor codebook."""
        images, sources = batches[0].to(self.device), batches[1]
        if not bool(self.network.quantize.embedding.initted):
            self._initialize_codebook(step)
        # The forward pass updates the codebook before its gradient is known to be finite.
        codebook = {k: v.clone() for k, v in self.network.quantize.state_dict().items()}
        # Seeded by the step, so that a resumed run draws the same numbers.
        generator = torch.Generator().manual_seed(int(randomness.bits(self.job.seed, step) >> 1))
        with autocast:
            with torch.no_grad():
                target = self.teacher(images)
            distilled = self.replica(images, target, generator)
        self.optimizer.zero_grad(set_to_none=True)
        distilled.loss.backward()
        # Gradients are summed over workers, so all workers decide alike.
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        grad_norm = float(nn.utils.get_total_norm(gradients))
        skipped = not math.isfinite(grad_norm)
        if skipped:
            self.network.quantize.load_state_dict(codebook)
        else:
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            self.optimizer.step()
            self.counts.add_over_workers(distilled.codes, sources)
        metrics = {
            "loss": float(distilled.loss.detach()),
            "teacher_cosine": float(distilled.cosine.detach()),
            "num_codes_in_batch": float(distilled.codes.unique().numel()),
            "grad_norm": grad_norm,
        }
        return StepOutcome(metrics | self._epoch_metrics(step), skipped)

    def _initialize_codebook(self, step: int) -> None:
        """Run k-means over the images of this and the next steps."""
        generator = torch.Generator().manual_seed(int(randomness.bits(self.job.seed, 11) >> 1))
        steps = range(step, step + _KMEANS_BATCHES)
        images = (self.batches(number)[0].to(self.device) for number in steps)
        self.network.initialize_codebook(images, generator)

    def _epoch_metrics(self, step: int) -> dict[str, float]:
        """Return the codebook usage of the epoch that ends with this step, else nothing."""
        if (step + 1) % self.steps_per_epoch:
            return {}
        numbers = self.counts.numbers(self.job.sources)
        self.counts = self._new_counts()
        return {f"epoch/{name}": value for name, value in numbers.items()}

    def work(self, batches: tuple[Tensor, Tensor]) -> Work:
        """Return the images and patches of a step; their operations are not counted."""
        params = self.job.params
        num_patches = (params.image_size // params.patch_size) ** 2
        return Work(params.batch_size, params.batch_size * num_patches)

    def slow_feed(self, seconds: float) -> str:
        """Return what makes the feed faster: a few threads of each worker read and cut images."""
        return (
            "raise image_tokenizer.num_workers, as each reads and cuts its own images, or move the "
            "images to a faster store"
        )

    def write_files(self, folder: Path) -> None:
        """Write the tokenizer in BEiT v2's layout, and the codes counted in this epoch."""
        self.network.save(folder / MODEL_FILE)
        np.save(folder / COUNTS_FILE, self.counts.counts.numpy())

    def read_files(self, folder: Path) -> None:
        """Continue to count the codes of the epoch in which the checkpoint was saved."""
        self.counts.counts = torch.from_numpy(np.load(folder / COUNTS_FILE))


def num_runs_held(num_substreams: int, num_workers: int) -> int:
    """Return how many runs of images the windows of a worker have."""
    return (SHUFFLE_WINDOW + 1) * num_substreams // num_workers + 1


def _replicated(tokenizer: VQKD) -> nn.Module:
    """Return the tokenizer with gradients averaged over workers."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return tokenizer
    # The codebook is the same on every worker: its statistics are summed over workers.
    return nn.parallel.DistributedDataParallel(tokenizer, broadcast_buffers=False)
