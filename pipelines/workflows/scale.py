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
from model.network.config import Recomputing
from model.training.batch import STREAMS
from model.training.cost import memory_bytes, parameters_by_part, sample_shapes, step_flops
from model.training.device_rates import published_peak
from orchestration.reporting.results import human_bytes, human_seconds
from pipelines.pretrain.params import Params
from pipelines.tokens.given_weights import num_codes_of
from pipelines.workflows.compute_time import step_operations
from pipelines.workflows.feed_memory import held_bytes
from pipelines.workflows.pretrain_recipe import PretrainRecipe

NUM_WORKERS: Final = (8, 16, 32, 64, 128, 256, 512)
_NODE: Final = 8
"GPUs of a machine."
_GRADIENT_BYTES: Final = {"fp32": 4, "bf16": 2}
"Of a weight's gradient when it is summed over the workers, by ``train.reduce_dtype``."


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU and what its links are assumed to carry."""

    name: str
    "As ``torch.cuda.get_device_name`` returns it."
    memory: int
    "Bytes."
    in_node: float
    "Bytes per second in one direction, between the GPUs of a machine (NVLink)."
    network: float
    "Bytes per second of a GPU between machines."

    @property
    def peak(self) -> float:
        """Dense peak in bf16, in operations per second."""
        peak = published_peak(self.name, "bf16")
        assert peak is not None, self.name
        return peak


GPUS: Final[Mapping[str, Gpu]] = {
    "A100 40GB": Gpu("NVIDIA A100-SXM4-40GB", 40_000_000_000, 300e9, 25e9),
    "H100": Gpu("NVIDIA H100 80GB HBM3", 80_000_000_000, 450e9, 50e9),
}
_NAMED: Final = (("A100 40GB", 256), ("H100", 64))
"Clusters that a plan names."


@dataclass(frozen=True)
class Measured:
    """A rate that was measured, bf16 and compiled, on one GPU."""

    size: str
    samples_per_s: float
    recomputed: Recomputing
    "What was computed again in the backward."

    @property
    def share(self) -> float:
        """Share of the dense peak of an H100, recomputed operations included."""
        config = BEiT3Config.named(self.size)
        shapes, counts = sample_shapes(config), dict.fromkeys(STREAMS, 1)
        operations = step_flops(config, shapes, counts, self.recomputed) / len(STREAMS)
        return self.samples_per_s * operations / GPUS["H100"].peak


MEASURED: Final[Mapping[str, Measured]] = {
    "base": Measured("base", 2520, "none"),
    "giant": Measured("giant", 191, "full"),
}
"Of base on an H100; of giant on an H200, whose dense peak is that of an H100."


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


def measured_for(params: Params) -> Measured:
    """Return the measured rate of the network that is nearest in width."""
    width = params.network.config(vocab_size=1, num_codes=1).width
    return min(
        MEASURED.values(), key=lambda known: abs(BEiT3Config.named(known.size).width - width)
    )


def scale(recipe: PretrainRecipe, gpu: Gpu, num_workers: int) -> Scale:
    """Return the figures of a recipe's pretraining on so many GPUs."""
    train, tokenizer = recipe.train, recipe.image_tokenizer
    config = train.network.config(
        vocab_size=recipe.text_tokenizer.vocab_size,
        num_codes=num_codes_of(tokenizer, tokenizer.weights),
    )
    layout = train.layout(num_workers)
    shapes = train.sample_shapes(config, recipe.text_tokens.length)
    own = [number / num_workers for number in train.samples_per_step.values()]
    num_micro_batches = sum(-(-number // layout.micro_batch) for number in own)
    sent = sent_bytes(
        config,
        num_workers,
        int(num_micro_batches),
        of_gradient=_GRADIENT_BYTES[train.reduce_dtype],
        sharded=layout.sharded,
    )
    bandwidth = gpu.in_node if num_workers <= _NODE else gpu.network
    share = measured_for(train).share
    here = recipe.model_copy(
        update={"train": train.model_copy(update={"num_workers": num_workers})}
    )
    return Scale(
        num_workers=num_workers,
        micro_batch=layout.micro_batch,
        num_micro_batches=int(num_micro_batches),
        memory=sum(memory_bytes(config, shapes, layout).values()),
        host_memory=held_bytes(here),
        compute_s=step_operations(recipe) / (num_workers * gpu.peak * share),
        communication_s=sent / bandwidth,
        sent_bytes=sent,
        steps=train.steps,
    )


def sent_bytes(
    config: BEiT3Config,
    num_workers: int,
    num_micro_batches: int,
    *,
    of_gradient: int,
    sharded: bool,
) -> float:
    """Return the bytes that a worker sends in a step.

    Copies sum their gradients once, in a ring: each part travels twice. Shards gather the bf16
    weights for the forward and again for the backward of each micro-batch, and reduce its
    gradients to their owners. The gradient of a weight has ``of_gradient`` bytes.
    """
    parameters = sum(parameters_by_part(config).values())
    others = (num_workers - 1) / num_workers
    if not sharded:
        return others * parameters * 2 * of_gradient
    return others * parameters * num_micro_batches * (2 + 2 + of_gradient)


def scale_lines(recipe: PretrainRecipe) -> Iterator[str]:
    """Yield what a pretraining on GPUs takes on two clusters, for a plan."""
    if not recipe.train.use_gpu:
        return
    for name, num_workers in _NAMED:
        found, gpu = scale(recipe, GPUS[name], num_workers), GPUS[name]
        fits = "" if found.memory < gpu.memory else f", more than the {human_bytes(gpu.memory)}"
        yield (
            f"pretrain on {num_workers} {name}: micro-batch {found.micro_batch} x "
            f"{found.num_micro_batches} in a step, {human_bytes(found.memory)} of a GPU{fits}, "
            f"{human_bytes(found.host_memory)} of a machine for each feed, step "
            f"{found.step_s:.3g} s (computing {found.compute_s:.3g} s, communication "
            f"{found.communication_s:.3g} s), {human_seconds(found.steps * found.step_s)} "
            f"({_assumptions(recipe, name)})"
        )


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
    known, gpu = measured_for(recipe.train), GPUS[name]
    return (
        f"assumed: {known.share:.0%} of the dense peak of {gpu.peak / 1e12:g} TFLOP/s, as measured "
        f"of {known.size} on one {'H200' if known.size == 'giant' else 'H100'} "
        f"({known.samples_per_s:g} samples/s); {gpu.in_node / 1e9:g} GB/s between the {_NODE} GPUs "
        f"of a machine, {gpu.network / 1e9:g} GB/s of each between machines, overlapped"
    )
