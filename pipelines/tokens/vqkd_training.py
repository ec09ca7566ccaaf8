"""Training VQ-KD on one worker: the loop that Ray Train runs for ``image_tokenizer``.

The codebook's statistics are summed over workers and its random choices are drawn from (seed,
step), so any number of workers, and a run that was killed, end with the same codebook.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from model.training import randomness
from model.training.optimizer import adamw, cosine_lr
from model.training.order import Order
from orchestration import Dataset
from orchestration.storage.remote_files import with_local_files
from orchestration.storage.store import Store
from orchestration.training import Session
from pipelines.readers.prefetch import prefetch
from pipelines.readers.rows import KeptImages, cut_views
from tokenizer.code_usage import CodeCounts
from tokenizer.vqkd import VQKD, to_input

if TYPE_CHECKING:
    from pipelines.tokens.image_tokenizer import Params

MODEL_FILE: Final = "vqkd.pt"
_STATE_FILE: Final = "state.pt"
_GROUP_ROWS: Final = 64
_WINDOW: Final = 4


@dataclass(frozen=True)
class Job:
    """What every worker needs; sent to it."""

    params: "Params"
    folder: Store
    "The stage's."
    seed: int
    kept: Sequence[Dataset]
    images: Sequence[Dataset]
    sources: list[str]
    "Of each of ``images``."


def train_loop(session: Session, job: Job) -> None:
    """Train on one worker."""
    params = job.params
    torch.set_num_threads(session.num_threads)
    torch.manual_seed(job.seed)
    device = session.device
    teacher: Any = with_local_files(params, job.folder).teacher_network().to(device)
    tokenizer = VQKD(params.config(teacher.dim)).to(device)
    optimizer = adamw(tokenizer, weight_decay=params.weight_decay, betas=(0.9, 0.99), eps=1e-8)
    start = 0
    with session.latest_checkpoint() as folder:
        if folder is not None:
            state = torch.load(folder / _STATE_FILE, map_location=device, weights_only=True)
            tokenizer.load_state_dict(state["tokenizer"])
            optimizer.load_state_dict(state["optimizer"])
            start = state["step"]
    network = _for_workers(tokenizer)
    feed = _Feed(job, session)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=params.precision == "bf16")
    use = CodeCounts(params.num_codes, len(job.sources))
    for step, (images, sources) in zip(
        range(start, params.steps), prefetch(feed.batch, start, params.steps), strict=True
    ):
        rate = cosine_lr(
            step,
            lr=params.lr,
            min_lr=params.min_lr,
            warmup_steps=params.warmup_steps,
            steps=params.steps,
        )
        images = images.to(device)
        # Seeded by the step, so that a run which is resumed draws what it would have drawn.
        generator = torch.Generator().manual_seed(int(randomness.bits(job.seed, step) >> 1))
        with autocast:
            with torch.no_grad():
                target = teacher(images)
            distilled = network(images, target, generator)
        optimizer.zero_grad(set_to_none=True)
        distilled.loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        use.add(distilled.codes, sources)
        metrics = {
            "loss": float(distilled.loss.detach()),
            "cosine": float(distilled.cosine.detach()),
            "codes_in_batch": distilled.codes.unique().numel(),
            "lr": rate,
        }
        if (step + 1) % feed.steps_per_epoch == 0:  # after a resume, of the steps since
            metrics |= {f"epoch/{k}": v for k, v in use.over_workers().numbers(job.sources).items()}
            use = CodeCounts(params.num_codes, len(job.sources))
        session.show(step + 1, params.steps, metrics)
        if (step + 1) % params.checkpoint_every == 0 or step + 1 == params.steps:
            session.save(step + 1, partial(_write, session, tokenizer, optimizer, step + 1))


def _write(
    session: Session, tokenizer: VQKD, optimizer: torch.optim.Optimizer, step: int, folder: Path
) -> None:
    if session.rank == 0:
        state = {
            "tokenizer": tokenizer.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
        }
        torch.save(state, folder / _STATE_FILE)
        tokenizer.save(folder / MODEL_FILE)


def _for_workers(tokenizer: VQKD) -> nn.Module:
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return tokenizer
    # The codebook is the same everywhere already: its statistics are summed over workers.
    return nn.parallel.DistributedDataParallel(tokenizer, broadcast_buffers=False)


class _Feed:
    """Random crops of curated images, in the order that any number of workers shares."""

    def __init__(self, job: Job, session: Session) -> None:
        self.params, self.seed = job.params, job.seed
        self.images = KeptImages(job.kept, job.images, ["sample_id", "jpeg"])
        total = len(self.images)
        group_rows = [min(_GROUP_ROWS, total - i) for i in range(0, total, _GROUP_ROWS)]
        self.order = Order(
            group_rows,
            batch=self.params.batch,
            num_substreams=self.params.substreams,
            shuffle_window=_WINDOW,
            seed=int(randomness.bits(self.seed, 10)),
        )
        # A run of slots each: features that workers gather then lie in the order of one worker's.
        self.slots = np.arange(self.params.batch).reshape(session.num_workers, -1)[session.rank]
        self.steps_per_epoch = max(total // self.params.batch, 1)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return this worker's crops of a step, (B, 3, H, W) in [-1, 1], and their sources (B,)."""
        places = self.order.rows(step, self.slots)
        params = self.params
        crops = cut_views(self.images, places, params.min_scale, self.seed, step, params.image_size)
        return to_input(crops), torch.from_numpy(self.images.dataset[places])
