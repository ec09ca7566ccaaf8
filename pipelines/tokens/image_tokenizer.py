"""Image tokenizer: images and a teacher → a VQ-KD checkpoint.

In: curated images of every source. Out: ``vqkd.pt``; ``report.json`` (codebook usage and
perplexity, overall and by source, and the mean cosine to the teacher's features); the history of
the metrics (Parquet files in ``history``); two figures: images beside the maps of their codes, and
patches of the most used codes. The stage fails if the codebook is below the recipe's minimum usage
or cosine, since every later stage would train on poor codes. A given tokenizer
(``image_tokenizer.weights``) is reported in the same way, without training.
"""

import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from orchestration import Context, Stage, feeding
from orchestration.branches import branch_files, branch_numbers
from orchestration.errors import RecipeError, StageError
from orchestration.manifest import File
from orchestration.params import EXTERNAL_FILE, OPERATIONAL, OR_URI, is_uri
from orchestration.reporting.usage import TORCH_BYTES, WORKER_BYTES, Expected, Workers
from orchestration.resources import Resources
from orchestration.storage.remote_files import with_local_files
from orchestration.storage.store import Store
from orchestration.training import fit
from pipelines.readers.expected_memory import CUDA_BYTES, kept_images_bytes
from pipelines.readers.kept_images import CACHED_GROUPS
from pipelines.tokens.codebook_report import (
    MAPS_FILE,
    PATCHES_FILE,
    REPORT_FILE,
    ReportImages,
    write_codebook_report,
)
from pipelines.tokens.given_weights import misfit, remote_problem, stated_heads
from pipelines.tokens.vqkd_training import (
    MODEL_FILE,
    VQKDJob,
    VQKDTrainingParams,
    num_runs_held,
)
from pipelines.training.history import complete_curve
from pipelines.training.loop import train
from tokenizer.teachers import unreachable
from tokenizer.vqkd import VQKD

_TRAINED_BYTES: Final = 4_000_000_000
"Memory of a training of the default size on the CPU: weights, teacher, optimizer, activations."
_COPIED_BYTES: Final = 1_200_000_000
"Copy of its weights and optimizer state, while a checkpoint is written."
_REPORTED_BYTES: Final = 2_000_000_000
"Memory of the report on a given tokenizer of the default size: weights, activations, crops."


class Params(VQKDTrainingParams):
    """The tokenizer, its training and its report; defaults are BEiT v2's."""

    weights: Annotated[str | None, EXTERNAL_FILE, OR_URI] = None
    "Path or URI of a tokenizer, such as BEiT v2's, whose sizes and weights are used untrained."
    num_report_images: Annotated[int, OPERATIONAL] = Field(default=4096, ge=1)
    "Largest number of images over which the report measures codebook usage."
    min_usage: Annotated[float, OPERATIONAL] = Field(default=0.5, ge=0, le=1)
    "Smallest fraction of codes in use after training; the stage fails below it."
    min_cosine: Annotated[float, OPERATIONAL] = Field(default=0, ge=-1, le=1)
    "Smallest mean cosine to the teacher's features after training; the stage fails below it."


class CropParams(Params):
    """The section, and the recipe's ``flip``."""

    flip: bool
    "Whether half of the crops are mirrored."


def stage(
    params: Params, *, seed: int, flip: bool, curated: Stage, images: Sequence[Stage]
) -> Stage:
    """Return the stage ``image_tokenizer``.

    Args:
        params: the recipe's section.
        seed: of the recipe.
        flip: of the recipe.
        curated: ``curate``.
        images: the stages whose images curation read, in its order.
    """
    complete = CropParams(**params.model_dump(exclude_unset=True), flip=flip)
    return Stage(
        "image_tokenizer",
        lambda context: run(context, complete),
        complete,
        feeding(curated=curated, images=images),
        seed=seed,
        version=5,
        requires=partial(requires, params),
        expects=partial(expects, params),
        resources=params.resources if params.weights is None else Resources(1, int(params.use_gpu)),
        workers=partial(workers, params, [each.name for each in images]),
    )


def requires(params: Params) -> str | None:
    """Return what is missing to train, or why given weights cannot be used, or None.

    A given local file is read, of a remote one the beginning.
    """
    for name in ("weights", "teacher_weights"):
        if location := getattr(params, name):
            reason = _remote(params, name) if is_uri(location) else _unreadable(params, name)
            return f"image_tokenizer.{name}: {reason}" if reason else None
    if not (reason := unreachable(params.teacher)):
        return None
    return (
        f"image_tokenizer.teacher {params.teacher}: its weights cannot be downloaded ({reason}); "
        "set image_tokenizer.teacher_weights to a file, or image_tokenizer.teacher=hand_crafted"
    )


def _unreadable(params: Params, name: str) -> str | None:
    """Return why the file of a field cannot be used, or None."""
    try:
        if name == "weights":
            path = Path(str(params.weights))
            reason = misfit(_given_tokenizer(params, path).config, params)
            return f"{path}: {reason}" if reason else None
        params.teacher_network()
    except (OSError, ValueError) as error:
        return str(error)
    return None


def _remote(params: Params, name: str) -> str | None:
    try:
        return remote_problem(getattr(params, name), params, is_tokenizer=name == "weights")
    except RecipeError as error:
        return str(error)


def _given_tokenizer(params: Params, path: Path) -> VQKD:
    """Load a tokenizer for the recipe's grid.

    A number of heads in the recipe is for a file that does not hold it.
    """
    return VQKD.load(path, stated_heads(params), params.image_size // params.patch_size)


def expects(params: Params) -> Expected:
    """Return what the recipe alone says of the work: the number of images to train on."""
    return Expected(rows=None if params.weights else params.steps * params.batch_size)


def workers(params: Params, images: Sequence[str], inputs: Mapping[str, Expected]) -> Workers:
    """Predict a worker's memory in its machine: row groups of the windows, see ``VQKDTask``.

    A given tokenizer is not trained: one worker reports on it.
    """
    if params.weights is not None:
        held = (CUDA_BYTES if params.use_gpu else 0) + _REPORTED_BYTES
        read = kept_images_bytes(inputs, images, CACHED_GROUPS)
        return Workers(WORKER_BYTES + TORCH_BYTES + held + read, 1)
    cached = num_runs_held(params.substreams, params.min_workers)
    network = CUDA_BYTES if params.use_gpu else _TRAINED_BYTES
    held = network + _COPIED_BYTES + kept_images_bytes(inputs, images, cached)
    return Workers(WORKER_BYTES + TORCH_BYTES + held, params.min_workers)


def run(context: Context, params: CropParams) -> None:
    """Train with Ray Train or use the given tokenizer; write the report, check it, commit."""
    curated, images = context.input("curated"), context.inputs("images")
    kept = [curated.table(name) for name in ("pairs", "images")]
    sources = [name.rpartition("/")[2] for name in context.stage.inputs["images"]]
    local = context.local_files(params)
    of_training: list[File] = []
    counts: dict[str, float] = {}
    if local.weights is None:
        job = VQKDJob(params, context.folder, context.seed, params.flip, kept, images, sources)
        origin, name = fit(context, params, train, job), MODEL_FILE
        curve = complete_curve(context, origin)
        of_training = [*curve.files, *branch_files(context.folder)]
        counts = {"num_skipped_steps": curve.num_skipped, **branch_numbers(context.folder)}
    else:
        path = Path(local.weights)
        origin, name = Store(path.parent), path.name
    chosen = ReportImages(
        kept,
        images,
        sources,
        params.num_report_images,
        params.min_crop_scale,
        context.seed,
        params.flip,
    )
    numbers = context.run_task(
        store_and_report,
        context.folder,
        origin,
        name,
        params,
        chosen,
        num_gpus=int(params.use_gpu),
    )
    context.log.metrics(numbers, step=params.steps)
    figures = [MAPS_FILE, PATCHES_FILE] if numbers else []
    for file in figures:
        context.log.artifact(context.folder.fetch(file))
    if numbers:
        check_minimums(params, numbers)
    context.commit(
        files=[MODEL_FILE, REPORT_FILE, *figures, *of_training],
        numbers=numbers | counts,
    )


def store_and_report(
    folder: Store, origin: Store, name: str, params: Params, chosen: ReportImages
) -> dict[str, float]:
    """Copy the tokenizer into the stage's folder and write its report; return its numbers.

    Args:
        folder: folder of the stage.
        origin: folder of the tokenizer.
        name: file name of the tokenizer.
        params: the recipe's section.
        chosen: images to report on.
    """
    tokenizer = _given_tokenizer(params, Path(origin.fetch(name)))
    if params.weights and (reason := misfit(tokenizer.config, params)):
        raise StageError(f"image_tokenizer.weights: {reason}")
    with tempfile.TemporaryDirectory() as temporary:
        tokenizer.save(Path(temporary) / MODEL_FILE)
        folder.write_file(MODEL_FILE, Path(temporary) / MODEL_FILE)
    device = "cuda" if params.use_gpu else "cpu"
    local = with_local_files(params, folder)
    teacher = None if local.weights else local.teacher_network().to(device)
    return write_codebook_report(folder, tokenizer.to(device), teacher, chosen)


def check_minimums(params: Params, numbers: dict[str, float]) -> None:
    """Refuse a poor codebook.

    Raises:
        StageError: codebook usage or cosine is below the recipe's minimum.
    """
    if numbers["codebook_usage"] < params.min_usage:
        raise StageError(
            f"the codebook uses {numbers['codebook_usage']:.1%} of its codes (perplexity "
            f"{numbers['codebook_perplexity']:.0f}), less than image_tokenizer.min_usage = "
            f"{params.min_usage:.1%}. Try kmeans=true, a larger dead_code_threshold, fewer codes "
            "or more steps, or lower min_usage to accept the codebook."
        )
    cosine = numbers.get("teacher_cosine", 1.0)
    if cosine < params.min_cosine:
        raise StageError(
            f"the decoder reaches a cosine of {cosine:.3f} to the teacher's features, less than "
            f"image_tokenizer.min_cosine = {params.min_cosine:.3f}. Try more steps or a wider "
            "encoder, or lower min_cosine to accept the tokenizer."
        )
