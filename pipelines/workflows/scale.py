"""A pretraining on other numbers of GPUs: memory, time of a step, communication, days.

Operations, bytes and memory are those of :mod:`model.training.cost`. What the hardware reaches is
assumed and stated beside each figure: the share of the dense peak in which a step computes, from
rates that ``benchmarks/whole_step.py`` measured, and the bandwidth of a GPU's links. Communication
overlaps with computing, so a step takes the longer of the two.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from model import BEiT3Config
from model.training.cost import memory_bytes, parameters_by_part
from orchestration.reporting.results import human_bytes, human_seconds
from pipelines.training.params import Precision
from pipelines.workflows.compute_time import step_operations
from pipelines.workflows.feed_memory import held_bytes
from pipelines.workflows.gpu_rates import GPUS, USUAL, Gpu, measured_for, rate, share_of_peak
from pipelines.workflows.pretrain_recipe import PretrainRecipe

NUM_WORKERS: Final = (8, 16, 32, 64, 128, 256, 512)
_NODE: Final = 8
"GPUs of a machine."
_BYTES: Final[Mapping[Precision, int]] = {"fp32": 4, "bf16": 2}
_NAMED: Final = ((USUAL, 256), ("H100", 64))
"Clusters that a plan names beside that of the recipe."
_LONG_S: Final = 14 * 86_400.0


@dataclass(frozen=True)
class Scale:
    """One pretraining on a number of workers."""

    num_workers: int
    micro_batch: int
    num_micro_batches: int
    "Forward passes of a worker in a step, over all streams (gradient accumulation)."
    memory: int
    "Of a GPU in bytes, by the account."
    host_memory: int
    "Bytes that the feed of a worker holds."
    compute_s: float
    communication_s: float
    sent_bytes: float
    "That a worker sends in a step."
    steps: int

    @property
    def step_s(self) -> float:
        """Seconds of a step."""
        return max(self.compute_s, self.communication_s)

    @property
    def days(self) -> float:
        """Days of the training."""
        return self.steps * self.step_s / 86_400

    @property
    def efficiency(self) -> float:
        """Share of the time in which the GPUs compute."""
        return self.compute_s / self.step_s


def scale(recipe: PretrainRecipe, gpu: Gpu, num_workers: int) -> Scale:
    """Return the figures of a recipe's pretraining on so many GPUs."""
    train = recipe.train
    config = train.network.config(
        vocab_size=recipe.text_tokenizer.vocab_size,
        num_codes=recipe.num_codes,
    )
    layout = train.layout(num_workers)
    shapes = train.sample_shapes(config, recipe.text_tokens.length)
    own = [number / num_workers for number in train.samples_per_step.values()]
    num_micro_batches = sum(-(-number // layout.micro_batch) for number in own)
    sent = sent_bytes(
        config,
        num_workers,
        int(num_micro_batches),
        sharded=layout.sharded,
        weight_bytes=_BYTES[train.precision],
        gradient_bytes=_BYTES[train.reduce_dtype],
    )
    bandwidth = gpu.in_node if num_workers <= _NODE else gpu.network
    here = recipe.model_copy(
        update={"train": train.model_copy(update={"num_workers": num_workers})}
    )
    return Scale(
        num_workers=num_workers,
        micro_batch=layout.micro_batch,
        num_micro_batches=int(num_micro_batches),
        memory=sum(memory_bytes(config, shapes, layout).values()),
        host_memory=held_bytes(here),
        compute_s=step_operations(recipe)
        / (num_workers * rate(gpu, train.precision, measured_for(train))),
        communication_s=sent / bandwidth,
        sent_bytes=sent,
        steps=train.steps,
    )


def sent_bytes(
    config: BEiT3Config,
    num_workers: int,
    num_micro_batches: int,
    *,
    sharded: bool,
    weight_bytes: int = 2,
    gradient_bytes: int = 4,
) -> float:
    """Return the bytes that a worker sends in a step.

    Copies sum their gradients once, in a ring: each part travels twice. Shards gather the weights
    for the forward and again for the backward of each micro-batch, and reduce its gradients to
    their owners. A weight has ``weight_bytes`` when it is gathered, its gradient
    ``gradient_bytes`` when it is summed.
    """
    parameters = sum(parameters_by_part(config).values())
    others = (num_workers - 1) / num_workers
    if not sharded:
        return others * parameters * 2 * gradient_bytes
    return others * parameters * num_micro_batches * (2 * weight_bytes + gradient_bytes)


def scale_lines(recipe: PretrainRecipe) -> Iterator[str]:
    """Yield what a pretraining on GPUs takes on the recipe's workers and on two clusters."""
    train = recipe.train
    if not train.use_gpu:
        return
    own = (USUAL, train.min_workers)
    for name, num_workers in dict.fromkeys((own, *_NAMED)):
        found, gpu = scale(recipe, GPUS[name], num_workers), GPUS[name]
        seconds = found.steps * found.step_s
        fits = "" if found.memory < gpu.memory else f", more than the {human_bytes(gpu.memory)}"
        is_long = (name, num_workers) == own and seconds > _LONG_S
        yield (
            f"pretrain on {num_workers} {name}: micro-batch {found.micro_batch} x "
            f"{found.num_micro_batches} in a step, {human_bytes(found.memory)} of a GPU{fits}, "
            f"{human_bytes(found.host_memory)} of a machine for each feed, step "
            f"{found.step_s:.3g} s (computing {found.compute_s:.3g} s, communication "
            f"{found.communication_s:.3g} s), {human_seconds(seconds)} for {found.steps} steps "
            f"({_assumptions(recipe, name)})"
            + (f"; set {_remedy(recipe, found)}" if is_long else "")
        )


def _remedy(recipe: PretrainRecipe, found: Scale) -> str:
    """Return what makes a pretraining take fewer days."""
    train = recipe.train
    if found.communication_s <= found.compute_s:
        return "more train.num_workers, or a smaller train.network.size"
    own = max(train.samples_per_step.values()) / found.num_workers
    if found.micro_batch < own:
        return "a larger train.micro_batch, which gathers the weights less often"
    less = "train.reduce_dtype=bf16, or " if train.reduce_dtype == "fp32" else ""
    return f"{less}a smaller train.network.size: communication takes longer than computing"


def scale_table(recipe: PretrainRecipe, name: str) -> Iterator[str]:
    """Yield the lines of a table of one pretraining on 8 to 512 GPUs of a kind."""
    gpu, train = GPUS[name], recipe.train
    yield f"pretrain on {name}, train.sharding = {train.sharding}; {_assumptions(recipe, name)}"
    yield (
        "workers  micro-batch  in a step  GPU memory  feed memory  compute s  comm. s   step s     "
        "days  computing"
    )
    for num_workers in NUM_WORKERS:
        each = scale(recipe, gpu, num_workers)
        notes = "  does not fit" if each.memory > gpu.memory else ""
        if train.substreams % num_workers:
            notes += f"  needs train.substreams = a multiple of {num_workers}"
        yield (
            f"{num_workers:7d}  {each.micro_batch:11d}  {each.num_micro_batches:9d}  "
            f"{each.memory / 1e9:7.1f} GB  {each.host_memory / 1e9:8.1f} GB  "
            f"{each.compute_s:9.3f}  {each.communication_s:7.3f}  {each.step_s:7.3f}  "
            f"{each.days:7.1f}  {each.efficiency:9.0%}{notes}"
        )


def _assumptions(recipe: PretrainRecipe, name: str) -> str:
    known, gpu, precision = measured_for(recipe.train), GPUS[name], recipe.train.precision
    measured = (
        f", as measured of {known.size} on one {known.gpu} ({known.samples_per_s:g} samples/s)"
        if precision == "bf16"
        else ""
    )
    return (
        f"assumed: {share_of_peak(precision, known):.0%} of the dense peak of "
        f"{gpu.peak(precision) / 1e12:g} TFLOP/s in {precision}{measured}; "
        f"{gpu.in_node / 1e9:g} GB/s between the {_NODE} GPUs "
        f"of a machine, {gpu.network / 1e9:g} GB/s of each between machines, overlapped"
    )
