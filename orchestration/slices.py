"""Slices: the data model of a stage's work, cut into fixed ranges of its input.

:mod:`orchestration.slice_runner` runs them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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


Process = Callable[[Slice], Output | Iterator[Output]]
"""A function that processes one slice; the same slice must give the same output.

A slice whose output is too large for memory yields it in pieces, which are written one after the
other. Each piece begins a new row group of its tables.
"""
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


def group_slices(dataset: Dataset, column: str, num_bytes: int) -> list[Slice]:
    """Return slices of whole row groups; :func:`read_slice` or :func:`read_groups` reads one.

    Args:
        dataset: the dataset to cut.
        column: the column whose bytes count, as :meth:`Dataset.column_bytes` returns them.
        num_bytes: largest size of a slice; a larger row group is a slice of its own.
    """
    groups = dataset.row_groups()
    slices = []
    for i, run in enumerate(runs(dataset.column_bytes(column), num_bytes)):
        start, stop = groups[run[0]].first_row, groups[run[-1]].first_row + groups[run[-1]].num_rows
        slices.append(Slice(f"{i:06d}", {"start": start, "stop": stop}, stop - start))
    return slices


def runs(sizes: Iterable[int], largest: int, most: int | None = None) -> Iterator[range]:
    """Yield runs of consecutive items, as ranges of their numbers.

    Args:
        sizes: size of each item.
        largest: largest sum of the sizes of a run; a larger item is a run of its own.
        most: largest number of items of a run.
    """
    first, total, number = 0, 0, -1
    for number, size in enumerate(sizes):
        if number > first and (total + size > largest or number - first == most):
            yield range(first, number)
            first, total = number, 0
        total += size
    if number >= first:
        yield range(first, number + 1)


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


def read_groups(dataset: Dataset, slice_: Slice, columns: Sequence[str]) -> "Iterator[pa.Table]":
    """Yield the rows of a slice of a range of rows, one row group at a time."""
    start, stop = slice_.payload["start"], slice_.payload["stop"]
    for group in dataset.row_groups():
        if group.first_row < stop and start < group.first_row + group.num_rows:
            first = max(start - group.first_row, 0)
            rows = min(stop - group.first_row, group.num_rows) - first
            yield dataset.read_group(group, columns).slice(first, rows)


def outputs_of(made: Output | Iterator[Output]) -> Iterator[Output]:
    """Yield what a :data:`Process` returned, piece by piece."""
    if isinstance(made, Output):
        yield made
    else:
        yield from made
