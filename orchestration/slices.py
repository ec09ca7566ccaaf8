"""Slices: the data model of a stage's work, cut into fixed ranges of its input.

:mod:`orchestration.slice_runner` runs them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestration.dataset import Dataset

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Slice:
    """The unit of work, of retry and of resume: a fixed range of an input."""

    id: str
    "Sortable name; also the name of the committed part."
    payload: Mapping[str, Any]
    "JSON-able values by which the process finds its input."
    num_rows: int | None = None
    "Number of input rows if known in advance; used for progress only."


@dataclass(frozen=True)
class Output:
    """The result of processing one slice."""

    num_rows_in: int
    "Number of input rows of the slice."
    tables: "Mapping[str, pa.Table]"
    "Tables by name. A table named ``rejects`` holds rejected rows and has a column ``reason``."
    counters: Mapping[str, int] = field(default_factory=dict)
    "Further counts by name."


Process = Callable[[Slice], Output]
"A function that processes one slice; the same slice must give the same output."
Quarantine = Callable[[Slice, str], Output]
"""Makes rejects of rows that end their worker, without processing them: takes a slice of these rows
and how the worker ended. The payload of its stage's slices must be a range of rows."""


def row_slices(dataset: Dataset, num_rows: int) -> list[Slice]:
    """Return slices of ``num_rows`` rows of a dataset; :func:`read_slice` reads one."""
    return range_slices(dataset.num_rows, num_rows)


def range_slices(total: int, size: int) -> list[Slice]:
    """Return slices of ``size`` out of ``total`` items; the payload is ``start`` and ``stop``."""
    slices = []
    for i, start in enumerate(range(0, total, size)):
        stop = min(start + size, total)
        slices.append(Slice(f"{i:06d}", {"start": start, "stop": stop}, stop - start))
    return slices


def name_slices(names: Sequence[str], size: int) -> list[Slice]:
    """Return slices of ``size`` names each; the payload is ``names``."""
    slices = []
    for slice_ in range_slices(len(names), size):
        mine = names[slice_.payload["start"] : slice_.payload["stop"]]
        slices.append(Slice(slice_.id, {"names": mine}, len(mine)))
    return slices


def read_slice(dataset: Dataset, slice_: Slice, columns: Sequence[str] | None = None) -> "pa.Table":
    """Return the rows of a slice that :func:`row_slices` made; all columns by default."""
    return dataset.read(slice_.payload["start"], slice_.payload["stop"], columns)
