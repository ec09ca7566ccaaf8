"""What GPUs are assumed to reach: the rate of a network's products, and what their links carry.

A plan has one assumption for all its figures: in bf16 the share of the dense peak that
``benchmarks/whole_step.py`` measured, in fp32 three quarters of it, as large products reach.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from model import BEiT3Config
from model.network.config import Recomputing
from model.training.batch import STREAMS
from model.training.cost import sample_shapes, step_flops
from model.training.device_rates import published_peak
from pipelines.pretrain.params import Params
from pipelines.training.params import Precision

_FP32_SHARE: Final = 0.75


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

    def peak(self, precision: Precision = "bf16") -> float:
        """Return the dense peak in operations per second."""
        peak = published_peak(self.name, precision)
        assert peak is not None, self.name
        return peak


USUAL: Final = "A100 40GB"
"Kind of GPU that a plan assumes for the workers of a recipe."
GPUS: Final[Mapping[str, Gpu]] = {
    USUAL: Gpu("NVIDIA A100-SXM4-40GB", 40_000_000_000, 300e9, 25e9),
    "H100": Gpu("NVIDIA H100 80GB HBM3", 80_000_000_000, 450e9, 50e9),
}


@dataclass(frozen=True)
class Measured:
    """A rate that was measured, bf16 and compiled, on one GPU."""

    size: str
    gpu: str
    "One of an H100's dense peak."
    samples_per_s: float
    recomputed: Recomputing
    "What was computed again in the backward."

    @property
    def share(self) -> float:
        """Share of the dense peak of an H100, recomputed operations included."""
        config = BEiT3Config.named(self.size)
        shapes, counts = sample_shapes(config), dict.fromkeys(STREAMS, 1)
        operations = step_flops(config, shapes, counts, self.recomputed) / len(STREAMS)
        return self.samples_per_s * operations / GPUS["H100"].peak()


MEASURED: Final[Mapping[str, Measured]] = {
    "base": Measured("base", "H100", 2520, "none"),
    "giant": Measured("giant", "H200", 191, "full"),
}


def measured_for(params: Params) -> Measured:
    """Return the measured rate of the network that is nearest in width."""
    width = params.network.config(vocab_size=1, num_codes=1).width
    return min(
        MEASURED.values(), key=lambda known: abs(BEiT3Config.named(known.size).width - width)
    )


def share_of_peak(precision: Precision, known: Measured = MEASURED["base"]) -> float:
    """Return the share of the dense peak in which a network computes."""
    return known.share if precision == "bf16" else _FP32_SHARE


def rate(gpu: Gpu, precision: Precision, known: Measured = MEASURED["base"]) -> float:
    """Return the operations per second of a GPU on which a network computes."""
    return gpu.peak(precision) * share_of_peak(precision, known)
