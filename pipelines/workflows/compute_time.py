"""How long the networks of a recipe compute on its hardware, so that no plan hides a year.

Operations are counted; the speed of the hardware is assumed, and stated beside each time.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from model.training.batch import Stream
from model.training.cost import step_flops
from orchestration.reporting.estimates import Estimate
from orchestration.reporting.results import human_seconds
from orchestration.resources import Resources
from pipelines.pretrain.params import Params as PretrainParams
from pipelines.tokens.vqkd_training import VQKDTrainingParams
from pipelines.training.params import Precision
from pipelines.workflows.gpu_rates import GPUS, USUAL, rate
from pipelines.workflows.pretrain_recipe import PretrainRecipe

_CORE_FLOPS: Final = 4e10
"Operations per second of a CPU core in matrix products."
_SHOWN_S: Final = 3600.0
_LONG_S: Final = 14 * 86_400.0
_IMAGE_STREAMS: Final[tuple[Stream, ...]] = ("image", "pair")


def compute_times(
    recipe: PretrainRecipe, num_images: Mapping[Stream, int], estimates: Mapping[str, Estimate]
) -> Iterator[str]:
    """Yield the time of each stage that computes for more than an hour, and what shortens it.

    A pretraining on GPUs is left out: :mod:`pipelines.workflows.scale` says what it takes.

    Args:
        recipe: the recipe.
        num_images: expected images of each stream, held-out ones included.
        estimates: by stage; a stage that has run before is left out, since its time is measured.
    """
    tokenizer, train = recipe.image_tokenizer, recipe.train
    encoding = encoder_flops(tokenizer)
    if tokenizer.weights is None and _is_unknown(estimates, "image_tokenizer"):
        # Encoder and decoder forward and backward, and the teacher's forward, a ViT of this size.
        operations = 4.5 * encoding * tokenizer.steps * tokenizer.batch_size
        yield from _line(
            "image_tokenizer",
            f"{tokenizer.steps} steps of {tokenizer.batch_size} images",
            operations,
            tokenizer.resources,
            tokenizer.precision,
            "image_tokenizer.use_gpu=true",
            "more image_tokenizer.num_workers, or image_tokenizer.weights",
        )
    for stream in _IMAGE_STREAMS:
        name = f"{stream}_tokens"
        tokens = getattr(recipe, name)
        if num_images[stream] and _is_unknown(estimates, name):
            num_views = num_images[stream] * tokens.num_views
            yield from _line(
                name,
                f"{tokens.num_views} views of about {num_images[stream]} images",
                num_views * encoding,
                Resources(tokens.cpus_per_actor, tokens.gpus_per_actor, tokens.num_actors),
                "fp32",
                f"{name}.gpus_per_actor",
                f"more {name}.num_actors, or fewer num_views",
            )
    if not train.use_gpu and _is_unknown(estimates, "pretrain"):
        yield from _line(
            "pretrain",
            f"{train.steps} steps",
            train.steps * step_operations(recipe),
            train.resources,
            train.precision,
            "train.use_gpu=true",
            "more train.num_workers, or a smaller train.network.size",
        )


def encoder_flops(tokenizer: VQKDTrainingParams) -> float:
    """Return the floating-point operations of the codes of one image."""
    width, length = tokenizer.width, (tokenizer.image_size // tokenizer.patch_size) ** 2 + 1
    products = 12 * length * width * width
    attention = 2 * length * length * width
    patches = length * 3 * tokenizer.patch_size**2 * width
    return 2.0 * (tokenizer.depth * (products + attention) + patches)


def step_operations(recipe: PretrainRecipe) -> float:
    """Return the floating-point operations of one step of pretraining, over all workers."""
    train: PretrainParams = recipe.train
    tokenizer = recipe.image_tokenizer
    config = train.network.config(
        vocab_size=recipe.text_tokenizer.vocab_size,
        num_codes=recipe.num_codes,
    )
    shapes = train.sample_shapes(config, recipe.text_tokens.length)
    counts = train.samples_per_step
    total = float(step_flops(config, shapes, counts, train.activation_checkpointing))
    if train.codes == "online":
        total += encoder_flops(tokenizer) * (counts["image"] + counts["pair"])
    return total


def _is_unknown(estimates: Mapping[str, Estimate], name: str) -> bool:
    return name not in estimates or estimates[name].seconds is None


def _line(
    stage: str,
    work: str,
    operations: float,
    resources: Resources,
    precision: Precision,
    gpu: str,
    more: str,
) -> Iterator[str]:
    if resources.num_gpus:
        number, unit, speed = (
            resources.num_gpus * resources.num_workers,
            "GPU",
            rate(GPUS[USUAL], precision),
        )
    else:
        number, unit, speed = resources.num_cpus * resources.num_workers, "CPU core", _CORE_FLOPS
    seconds = operations / (number * speed)
    if seconds < _SHOWN_S:
        return
    line = (
        f"{stage}: {work} take about {human_seconds(seconds)} on {number:g} "
        f"{unit}{'' if number == 1 else 's'} (assumed: {speed / 1e12:.2g} TFLOP/s each"
        f"{f', as of an {USUAL}' if resources.num_gpus else ''})"
    )
    remedy = more if resources.num_gpus else f"{gpu}, {more}"
    yield line + (f"; set {remedy}" if seconds > _LONG_S else "")
