"""Image tokenizer: images and a teacher → a VQ-KD checkpoint.

In: curated images of every source. Out: ``vqkd.pt``, ``report.json`` (how many codes are used
and how evenly, over all and by source, the cosine to the teacher) and two images: images beside
the maps of their codes, and patches that carry the most used codes. A codebook below the recipe's
floors fails the stage: everything after it would learn from a poor vocabulary. A tokenizer that is
given (``image_tokenizer.weights``) is examined in the same way and not trained.
"""

import tempfile
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator
from torch import nn

from orchestration import Context
from orchestration.errors import StageError
from orchestration.params import EXTERNAL_FILE, OR_URI
from orchestration.reporting.usage import Expected
from orchestration.storage.remote_files import with_local_files
from orchestration.storage.store import Store
from orchestration.training import TrainingParams, fit
from pipelines.tokens.codebook_report import (
    MAPS_FILE,
    REPORT_FILE,
    SHEET_FILE,
    Examination,
    examine,
)
from pipelines.tokens.vqkd_training import MODEL_FILE, Job, train_loop
from tokenizer.teachers import TeacherName, make_teacher, unreachable
from tokenizer.vqkd import VQKD, VQKDConfig


class Params(TrainingParams):
    """The tokenizer and its training; defaults are BEiT v2's."""

    weights: Annotated[str | None, EXTERNAL_FILE, OR_URI] = None
    "Path or URI of a tokenizer to take instead of training one, such as BEiT v2's."
    teacher: TeacherName = "clip"
    teacher_weights: Annotated[str | None, EXTERNAL_FILE, OR_URI] = None
    "Path or URI of the teacher's weights; null takes them from the Hugging Face hub."
    image_size: int = 224
    "Pixels the tokenizer sees."
    patch_size: int = 16
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    "Attention heads of encoder and decoder."
    decoder_depth: int = 3
    num_codes: int = Field(default=8192, ge=2, le=65_536)
    code_dim: int = 32
    ema_decay: float = Field(default=0.99, gt=0, lt=1)
    "Decay per step of the codebook's moving averages."
    dead_code_threshold: float = Field(default=0.01, ge=0)
    "Fraction of an even share of the patches below which a code is replaced; 0 replaces none."
    kmeans: bool = True
    "Start the codebook from k-means over the first batch; if false, from random codes."
    min_usage: float = Field(default=0.5, ge=0, le=1)
    "Share of codes that must be in use at the end, or the stage fails."
    min_cosine: float = Field(default=0, ge=-1, le=1)
    "Mean cosine to the teacher that must be reached at the end, or the stage fails."
    steps: int = Field(default=250_000, ge=1)
    batch: int = Field(default=512, ge=1)
    substreams: int = Field(default=8, ge=1)
    lr: float = 2e-4
    min_lr: float = 1e-5
    warmup_steps: int = 25_000
    weight_decay: float = 1e-4
    precision: Literal["fp32", "bf16"] = "bf16"
    min_scale: float = Field(default=0.08, gt=0, le=1)
    "Smallest share of an image that a crop shows."
    report_images: int = Field(default=4096, ge=1)
    "Images over which the use of codes is measured at the end."

    @model_validator(mode="after")
    def _divides(self) -> "Params":
        if self.batch % self.substreams or self.substreams % self.num_workers:
            raise ValueError(
                f"batch = {self.batch} must be a multiple of substreams = {self.substreams}, and "
                f"substreams of num_workers = {self.num_workers}"
            )
        return self

    def config(self, teacher_dim: int) -> VQKDConfig:
        """Return the tokenizer's sizes."""
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


def requires(params: Params) -> str | None:
    """Say what is lacking to train, or None."""
    if params.weights or params.teacher_weights or not (reason := unreachable(params.teacher)):
        return None
    return (
        f"image_tokenizer.teacher {params.teacher}: its weights cannot be had ({reason}); set "
        "image_tokenizer.teacher_weights to a file, or image_tokenizer.teacher=hand_crafted"
    )


def expects(params: Params) -> Expected:
    """Say what is known beforehand: the images that training sees."""
    return Expected(rows=None if params.weights else params.steps * params.batch)


def run(context: Context, params: Params) -> None:
    """Train with Ray Train or take what is given; examine it, check the floors, commit."""
    curated, images = context.input("curated"), context.inputs("images")
    kept = [curated.table(name) for name in ("pairs", "images")]
    sources = [name.rpartition("/")[2] for name in context.stage.inputs["images"]]
    local = context.local_files(params)
    if local.weights is None:
        job = Job(params, context.folder, context.seed, kept, images, sources)
        place, name = fit(context, params, train_loop, job), MODEL_FILE
    else:
        path = Path(local.weights)
        place, name = Store(path.parent), path.name
    what = Examination(kept, images, sources, params.report_images, params.min_scale, context.seed)
    numbers = context.run_task(
        examine_model, context.folder, place, name, params, what, num_gpus=int(params.use_gpu)
    )
    context.log.metrics(numbers, step=params.steps)
    for name in (MAPS_FILE, SHEET_FILE):
        context.log.artifact(context.folder.fetch(name))
    check_floors(params, numbers)
    context.commit(files=[MODEL_FILE, REPORT_FILE, MAPS_FILE, SHEET_FILE], numbers=numbers)


def examine_model(
    folder: Store, place: Store, name: str, params: Params, what: Examination
) -> dict[str, float]:
    """Copy the tokenizer to its place, write the report; return its numbers."""
    tokenizer = VQKD.load(place.fetch(name))
    with tempfile.TemporaryDirectory() as temporary:
        tokenizer.save(Path(temporary) / MODEL_FILE)
        folder.write_file(MODEL_FILE, Path(temporary) / MODEL_FILE)
    device = "cuda" if params.use_gpu else "cpu"
    local = with_local_files(params, folder)
    teacher = None if local.weights else local.teacher_network().to(device)
    return examine(folder, tokenizer.to(device), teacher, what)


def check_floors(params: Params, numbers: dict[str, float]) -> None:
    """Refuse a poor codebook.

    Raises:
        StageError: usage or cosine is below the recipe's floor; the message says what helps.
    """
    if numbers["code_usage"] < params.min_usage:
        raise StageError(
            f"the codebook uses {numbers['code_usage']:.1%} of its codes (perplexity "
            f"{numbers['code_perplexity']:.0f}), image_tokenizer.min_usage asks for "
            f"{params.min_usage:.1%}. A k-means start, a larger dead_code_threshold, fewer "
            "codes or more steps help; lower min_usage to go on all the same."
        )
    cosine = numbers.get("teacher_cosine", 1.0)
    if cosine < params.min_cosine:
        raise StageError(
            f"the decoder reaches a cosine of {cosine:.3f} to its teacher, "
            f"image_tokenizer.min_cosine asks for {params.min_cosine:.3f}. More steps or a wider "
            "encoder help; lower min_cosine to go on all the same."
        )
