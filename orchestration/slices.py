"""Slices: the fixed ranges of an input into which a stage cuts its work."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from orchestration.dataset import Dataset


@dataclass(frozen=True)
class Slice:
    """The unit of work, of retry and of resume: a fixed range of an input."""

    id: str
    "Sortable name; names the part that it commits."
    payload: Mapping[str, Any]
    "What the process needs to find its input; JSON-able."
    num_rows: int | None = None
    "Rows of its input, where that is known beforehand; for progress only."


@dataclass(frozen=True)
class Output:
    """What processing one slice gives."""

    num_rows_in: int
    tables: Mapping[str, pa.Table]
    "By name; a table named ``rejects`` has a column ``reason``."
    counters: Mapping[str, int] = field(default_factory=dict)


Process = Callable[[Slice], Output]
"Processes one slice. Deterministic: the same slice gives the same output."


def row_slices(dataset: Dataset, num_rows: int) -> list[Slice]:
    """Cut a dataset into slices of ``num_rows`` rows; read them with :func:`read_slice`."""
    return range_slices(dataset.num_rows, num_rows)


def range_slices(total: int, size: int) -> list[Slice]:
    """Cut ``total`` things into slices of ``size``: their payload holds ``start`` and ``stop``."""
    slices = []
    for i, start in enumerate(range(0, total, size)):
        stop = min(start + size, total)
        slices.append(Slice(f"{i:06d}", {"start": start, "stop": stop}, stop - start))
    return slices


def name_slices(names: Sequence[str], size: int) -> list[Slice]:
    """Cut named things into slices of ``size``: their payload holds ``names``."""
    slices = []
    for piece in range_slices(len(names), size):
        mine = names[piece.payload["start"] : piece.payload["stop"]]
        slices.append(Slice(piece.id, {"names": mine}, len(mine)))
    return slices


def read_slice(dataset: Dataset, piece: Slice, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the rows of one of :func:`row_slices`."""
    return dataset.read(piece.payload["start"], piece.payload["stop"], columns)
