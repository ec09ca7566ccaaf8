"""Image tokenizer: pictures and a teacher → a VQ-KD checkpoint.

In: curated pictures of every source. Out: ``vqkd.pt`` and ``report.json`` (how many codes are
used, the perplexity of their use, the cosine to the teacher). A codebook that uses fewer codes
than the recipe's floor fails the stage: everything after it would learn from a poor vocabulary.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn

from dataprep.images import decode_stored
from dataprep.views import cut, random_view
from model.training import randomness
from model.training.optimiser import adamw, learning_rate
from model.training.order import Order
from orchestration import Context, Dataset
from orchestration.errors import StageError
from orchestration.params import EXTERNAL_FILE
from orchestration.training import Session, TrainingParams, fit
from orchestration.usage import Expected
from pipelines.pictures import KeptPictures
from pipelines.prefetch import prefetch
from tokenizer.teachers import TeacherName, make_teacher
from tokenizer.vqkd import VQKD, VQKDConfig

MODEL_FILE: Final = "vqkd.pt"
_STATE_FILE: Final = "state.pt"
_GROUP_ROWS: Final = 64


class Params(TrainingParams):
    """The tokenizer and its training."""

    teacher: TeacherName = "clip"
    teacher_weights: Annotated[str | None, EXTERNAL_FILE] = None
    "Local file with the weights of a teacher that has some."
    image_size: int = 224
    "Pixels the tokenizer sees."
    patch_size: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    decoder_depth: int = 3
    num_codes: int = Field(default=8192, ge=2, le=65_536)
    code_dim: int = 32
    decay: float = Field(default=0.99, gt=0, lt=1)
    revive_below: float = Field(default=0.01, ge=0)
    "A code used less than this part of an even share is set anew."
    min_usage: float = Field(default=0.5, ge=0, le=1)
    "Share of codes that must be in use at the end."
    steps: int = Field(default=500_000, ge=1)
    batch: int = Field(default=512, ge=1)
    substreams: int = Field(default=8, ge=1)
    learning_rate: float = 1.5e-3
    learning_rate_floor: float = 1e-5
    warmup_steps: int = 25_000
    weight_decay: float = 1e-4
    min_scale: float = Field(default=0.5, gt=0, le=1)
    "Smallest share of a picture that a crop shows."
    report_pictures: int = Field(default=4096, ge=1)
    "Pictures over which the use of codes is measured."

    @model_validator(mode="after")
    def _divides(self) -> "Params":
        if self.batch % self.substreams or self.substreams % self.num_workers:
            raise ValueError(
                f"batch = {self.batch} must be a multiple of substreams = {self.substreams}, and "
                f"substreams of num_workers = {self.num_workers}"
            )
        return self

    def config(self, teacher_dim: int) -> VQKDConfig:
        """Return the network's sizes."""
        names = (
            "image_size",
            "patch_size",
            "width",
            "depth",
            "heads",
            "decoder_depth",
            "num_codes",
            "code_dim",
            "decay",
            "revive_below",
        )
        return VQKDConfig(**{name: getattr(self, name) for name in names}, teacher_dim=teacher_dim)

    def teacher_network(self) -> nn.Module:
        """Return the frozen teacher."""
        weights = Path(self.teacher_weights) if self.teacher_weights else None
        return make_teacher(self.teacher, self.image_size // self.patch_size, weights)


@dataclass(frozen=True)
class _Job:
    """What every worker needs; sent to it."""

    params: Params
    seed: int
    kept: Sequence[Dataset]
    images: Sequence[Dataset]


def requires(params: Params) -> str | None:
    """Say what is lacking to train, or None."""
    if params.teacher != "hand_crafted" and not params.teacher_weights:
        return (
            f"image_tokenizer.teacher {params.teacher} needs image_tokenizer.teacher_weights, a "
            "local file; or set image_tokenizer.teacher=hand_crafted"
        )
    return None


def expects(params: Params) -> Expected:
    """Say what is known beforehand: the pictures that training sees."""
    return Expected(rows=params.steps * params.batch)


def run(context: Context, params: Params) -> None:
    """Train with Ray Train, check the codebook, commit."""
    curated = context.input("curated")
    kept = [curated.of(name) for name in ("pairs", "images")]
    job = _Job(params, context.seed, kept, context.inputs("pictures"))
    checkpoint = fit(context, params, train_loop, job)
    report: dict[str, float] = json.loads(checkpoint.read("report.json"))
    if report["code_usage"] < params.min_usage:
        raise StageError(
            f"the codebook uses {report['code_usage']:.1%} of its {params.num_codes} codes, "
            f"image_tokenizer.min_usage asks for {params.min_usage:.1%}. Fewer codes, more steps "
            "or a larger revive_below help; lower min_usage to go on all the same."
        )
    files = [path for path in context.files_of(checkpoint) if not path.endswith(_STATE_FILE)]
    context.commit(files=files, numbers=report)


def train_loop(session: Session, job: _Job) -> None:
    """Train on one worker."""
    params = job.params
    torch.set_num_threads(session.num_threads)
    torch.manual_seed(job.seed)
    device = torch.device("cuda" if params.use_gpu else "cpu")
    teacher: Any = params.teacher_network().to(device)
    tokenizer = VQKD(params.config(teacher.dim)).to(device)
    optimiser = adamw(tokenizer, weight_decay=params.weight_decay, betas=(0.9, 0.99), eps=1e-8)
    start = 0
    with session.latest_checkpoint() as folder:
        if folder is not None:
            state = torch.load(folder / _STATE_FILE, map_location=device, weights_only=True)
            tokenizer.load_state_dict(state["tokenizer"])
            optimiser.load_state_dict(state["optimiser"])
            start = state["step"]
    network = _for_workers(tokenizer)
    feed = _Feed(job, session)
    for step, images in zip(
        range(start, params.steps), prefetch(feed.images, start, params.steps), strict=True
    ):
        rate = learning_rate(
            step,
            peak=params.learning_rate,
            floor=params.learning_rate_floor,
            warmup=params.warmup_steps,
            total=params.steps,
        )
        images = images.to(device)
        # Seeded by the step, so that a run which is resumed draws what it would have drawn.
        generator = torch.Generator().manual_seed(int(randomness.bits(job.seed, step) >> 1))
        with torch.no_grad():
            target = teacher(images)
        distilled = network(images, target, generator)
        optimiser.zero_grad(set_to_none=True)
        distilled.loss.backward()
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.step()
        session.show(
            step + 1,
            params.steps,
            {
                "loss": float(distilled.loss.detach()),
                "cosine": float(distilled.cosine.detach()),
                "codes_in_batch": distilled.codes.unique().numel(),
                "learning_rate": rate,
            },
        )
        last = step + 1 == params.steps
        if last or (step + 1) % params.checkpoint_every == 0:
            report = _report(tokenizer, teacher, feed, params) if last else {}

            def write(folder: Path, step: int = step, report: dict[str, float] = report) -> None:
                if session.rank == 0:
                    torch.save(
                        {
                            "tokenizer": tokenizer.state_dict(),
                            "optimiser": optimiser.state_dict(),
                            "step": step + 1,
                        },
                        folder / _STATE_FILE,
                    )
                    tokenizer.save(folder / MODEL_FILE)
                    (folder / "report.json").write_text(json.dumps(report, indent=1))

            session.save(step + 1, write)


def _for_workers(tokenizer: VQKD) -> nn.Module:
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return tokenizer
    # The codebook is the same everywhere already: its statistics are summed over workers.
    return nn.parallel.DistributedDataParallel(tokenizer, broadcast_buffers=False)


class _Feed:
    """Random crops of curated pictures, in the order that any number of workers shares."""

    def __init__(self, job: _Job, session: Session) -> None:
        self.params, self.seed = job.params, job.seed
        self.pictures = KeptPictures(job.kept, job.images, ["sample_id", "jpeg"])
        total = len(self.pictures)
        group_rows = [min(_GROUP_ROWS, total - i) for i in range(0, total, _GROUP_ROWS)]
        self.order = Order(
            group_rows,
            batch=self.params.batch,
            num_substreams=self.params.substreams,
            window=4,
            seed=int(randomness.bits(self.seed, 10)),
        )
        self.slots = self.order.slots(session.rank, session.num_workers)

    def images(self, step: int) -> Tensor:
        """Return this worker's crops of a step: (B, 3, H, W) in [-1, 1]."""
        return self.crops(self.order.rows(step, self.slots), step)

    def crops(self, places: NDArray[np.int64], step: int) -> Tensor:
        """Cut one random view of each picture."""
        table = self.pictures.take(places)
        crops = []
        for name, jpeg in zip(table["sample_id"].to_pylist(), table["jpeg"], strict=True):
            pixels = decode_stored(jpeg.as_py())
            height, width = pixels.shape[:2]
            view = random_view(width, height, self.params.min_scale, self.seed, name, step)
            crops.append(cut(pixels, view, self.params.image_size))
        return to_tokenizer_input(np.stack(crops))


def to_tokenizer_input(pixels: NDArray[np.uint8]) -> Tensor:
    """(B, H, W, 3) RGB → (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def _report(tokenizer: VQKD, teacher: nn.Module, feed: _Feed, params: Params) -> dict[str, float]:
    """Measure the use of codes over pictures of the corpus, with one view each."""
    tokenizer.eval()
    device = next(tokenizer.parameters()).device
    count = torch.zeros(params.num_codes, dtype=torch.float64)
    cosines, generator = [], torch.Generator()
    number = min(params.report_pictures, len(feed.pictures))
    places = np.linspace(0, len(feed.pictures) - 1, number).astype(np.int64)
    for chunk in np.array_split(places, -(-number // params.batch)):
        images = feed.crops(chunk, -1).to(device)
        distilled = tokenizer(images, teacher(images), generator)
        count += torch.bincount(distilled.codes.flatten().cpu(), minlength=params.num_codes)
        cosines.append(float(distilled.cosine))
    tokenizer.train()
    share = count / count.sum()
    entropy = float(-(share[share > 0] * share[share > 0].log()).sum())
    return {
        "code_usage": float((count > 0).double().mean()),
        "code_perplexity": float(np.exp(entropy)),
        "teacher_cosine": float(np.mean(cosines)),
    }
