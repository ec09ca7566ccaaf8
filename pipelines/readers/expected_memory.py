"""Memory that reading committed rows takes in a worker, for the prediction of a plan.

A stage predicts from its parameters and from the size of its inputs, as far as it is known:
complete inputs are measured, others are estimated from the recipe or from an earlier run.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from orchestration.reporting.usage import Expected

IMAGE_BYTES: Final = 30_000
"Bytes of a stored image of 256 pixels with its row, where no input says more."
DECODING_BYTES: Final = 100_000_000
"Memory of the decode of one large original."
CUDA_BYTES: Final = 2_000_000_000
"What a CUDA context and its libraries take in a machine's memory."
COPIES: Final = 4
"Of the rows of a slice: as read, as written, Parquet and the file."
_LOCATIONS_BYTES: Final = 20_000_000
"Datasets and rows of the kept images of a few row groups of curation."


def total_rows(inputs: Mapping[str, Expected], names: Iterable[str]) -> int:
    """Return the rows of some inputs, as far as they are known."""
    return sum(inputs[name].rows or 0 for name in names)


def row_bytes(inputs: Mapping[str, Expected], names: Iterable[str], default: float) -> float:
    """Return the mean committed bytes of a row of some inputs, or ``default``."""
    known = [found for name in names if (found := inputs[name]).rows and found.bytes]
    rows = sum(found.rows or 0 for found in known)
    return sum(found.bytes or 0 for found in known) / rows if rows else default


def cached_bytes(
    inputs: Mapping[str, Expected], names: Iterable[str], num_groups: int, group_rows: int = 256
) -> int:
    """Return the memory of ``num_groups`` cached row groups of each of some inputs."""
    held = 0.0
    for name in names:
        rows = num_groups * group_rows
        rows = min(rows, inputs[name].rows or rows)
        held += rows * row_bytes(inputs, [name], IMAGE_BYTES)
    return round(held)


def kept_images_bytes(
    inputs: Mapping[str, Expected], images: Sequence[str], cached_groups: int
) -> int:
    """Return the memory of :class:`pipelines.readers.kept_images.KeptImages`.

    Args:
        inputs: size of each input by name.
        images: names of the inputs that hold the images.
        cached_groups: row groups that the reader of each of them keeps.
    """
    return _LOCATIONS_BYTES + cached_bytes(inputs, images, cached_groups)
