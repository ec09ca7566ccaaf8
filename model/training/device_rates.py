"""Peak rates of matrix products on devices: the denominator of model FLOPs utilization (MFU).

The rates are the dense ones of NVIDIA's data sheets; a sheet that gives only a rate "with sparsity"
gives twice the dense one. A device is known by its whole name, as a laptop's or a partition's
differs in a word. Of any other device the rate of a product is measured instead.
"""

import re
import time
from dataclasses import dataclass
from typing import Final, Literal

import torch

Format = Literal["fp32", "tf32", "bf16"]
"Number format of the products; ``tf32`` are fp32 products that torch may round."

_T: Final = 1e12
_MEMORY: Final = r"(?:[- ]\d+GB)?"
_PEAKS: Final[tuple[tuple[str, float | None, float | None, float | None], ...]] = (
    # name by torch.cuda.get_device_name, fp32, tf32, bf16; None where the device has no such units
    (rf"Tesla V100-SXM2{_MEMORY}", 15.7, None, None),
    (rf"Tesla V100-PCIE{_MEMORY}", 14.0, None, None),
    (r"Tesla T4", 8.1, None, None),
    (rf"A100-(?:SXM4|PCIE){_MEMORY}|A100 80GB PCIe", 19.5, 156, 312),
    (r"A30", 10.3, 82, 165),
    (r"A10", 31.2, 62.5, 125),
    (r"A40", 37.4, 74.8, 149.7),
    (r"RTX A6000", 38.7, 77.4, 154.8),
    (r"L4", 30.3, 60, 121),
    (r"L40", 90.5, 90.5, 181.05),
    (r"L40S", 91.6, 183, 362.05),
    (r"GeForce RTX 3090", 35.6, 35.6, 71),
    (r"GeForce RTX 4090", 82.6, 82.6, 165.2),
    (r"H100 80GB HBM3|H200|GH200 \d+GB", 67, 494.5, 989.5),
    (r"H100 PCIe", 51, 378, 756),
    (r"H100 NVL|H200 NVL", 60, 417.5, 835.5),
    (r"B200", 75, 1125, 2250),
    (r"GB200", 80, 1250, 2500),
)
"Operations per second, in 10^12."
_SIDE: Final = {"cuda": 4096, "cpu": 1024}
_REPEATS: Final = 4


@dataclass(frozen=True)
class DevicePeak:
    """What products on a device can reach."""

    device: str
    "Name of the device."
    flops: float
    "Floating-point operations per second, a product and a sum counted as two."
    format: Format
    "Number format of the products."
    is_published: bool
    "Whether it is a data sheet's; else it was measured with a large product."

    def __str__(self) -> str:
        source = "dense peak of the data sheet" if self.is_published else "measured product rate"
        return f"{self.flops / _T:.4g} TFLOP/s in {self.format}, {source}"


def published_peak(name: str, number_format: Format) -> float | None:
    """Return the dense peak of a device in operations per second, or None if it is not known.

    Args:
        name: as ``torch.cuda.get_device_name`` returns it.
        number_format: of the products.
    """
    name = name.removeprefix("NVIDIA ")
    for pattern, *rates in _PEAKS:
        if re.fullmatch(pattern, name):
            rate = rates[("fp32", "tf32", "bf16").index(number_format)]
            return None if rate is None else rate * _T
    return None


def device_peak(device: torch.device, dtype: torch.dtype) -> DevicePeak:
    """Return the peak of a device, published or measured.

    Args:
        device: of the training; measuring takes a fraction of a second.
        dtype: type of the products, bfloat16 or float32.
    """
    number_format: Format = "bf16" if dtype == torch.bfloat16 else "fp32"
    if device.type != "cuda":
        return DevicePeak(device.type, measured_rate(device, dtype), number_format, False)
    if number_format == "fp32" and torch.get_float32_matmul_precision() != "highest":
        number_format = "tf32"
    name = torch.cuda.get_device_name(device)
    peak = published_peak(name, number_format)
    rate = measured_rate(device, dtype) if peak is None else peak
    return DevicePeak(name, rate, number_format, peak is not None)


def measured_rate(device: torch.device, dtype: torch.dtype, side: int | None = None) -> float:
    """Return the best of a few measured rates of a square product, in operations per second.

    The global random state is not touched.
    """
    side = side or _SIDE.get(device.type, 1024)
    generator = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(side, side, device=device, generator=generator).to(dtype) for _ in "ab")
    best = float("inf")
    for _ in range(_REPEATS):
        _wait(device)
        start = time.perf_counter()
        a @ b
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
