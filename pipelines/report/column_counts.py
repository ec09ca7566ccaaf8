"""Counts over columns of committed datasets, in Arrow: hosts, sizes, digests, reasons.

Only the counted columns are read, one range of rows at a time, and no row becomes a Python object:
a source can have tens of millions of rows.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestration import Dataset
from pipelines.readers.spread import spread

STORED: Final = "stored"
"Outcome of a row that is no reject, beside the reasons of rejects."
_HOST: Final = r"^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#]*@)?(?P<host>\[[^\]/?#]*\]|[^/?#:]+)"
_ROWS: Final = 65_536
_READERS: Final = 8
"Number of ranges read at the same time, which hides the latency of an object store."
_MERGED: Final = 32
_BINS_PER_DOUBLING: Final = 2

T = TypeVar("T")


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram: the rows with values from ``low`` to ``high``, both included."""

    low: int
    high: int
    rows: int


@dataclass(frozen=True)
class HostCount:
    """Requests to one host."""

    host: str
    tried: int
    failed: int
    reason: str
    "Most frequent reason of its failures."
    reason_rows: int
    "Number of failures for that reason."


@dataclass(frozen=True)
class DigestCount:
    """Originals compared with the digests in their list."""

    same: int
    other: int
    unknown: int
    "Originals without a digest in the list."


@dataclass(frozen=True)
class ImageCounts:
    """Sizes and digests of the stored images of a source."""

    original_bytes: int
    original_sides: tuple[Bar, ...]
    "Histogram of the originals' shorter side in pixels."
    original_sizes: tuple[Bar, ...]
    "Histogram of the originals' bytes."
    stored_sides: tuple[Bar, ...]
    "Histogram of the stored images' shorter side in pixels."
    digests: DigestCount | None
    "None for a list without digests."


@dataclass(frozen=True)
class HostReport:
    """The hosts of a source, and those with most failures."""

    num_hosts: int
    worst: tuple[HostCount, ...]


@dataclass
class _Sums:
    original_bytes: int
    original_sides: Counter[int]
    original_sizes: Counter[int]
    stored_sides: Counter[int]
    digests: Counter[bool | None]


def count_images(images: Dataset) -> ImageCounts:
    """Count the sizes and digests of the stored images of a source."""
    total = _Sums(0, Counter(), Counter(), Counter(), Counter())
    columns = (
        "original_width", "original_height", "original_bytes", "width", "height", "hash_matches",
    )  # fmt: skip
    for part in over_ranges(images, columns, _sums):
        for name, value in vars(part).items():
            setattr(total, name, getattr(total, name) + value)
    known = total.digests[True] + total.digests[False]
    return ImageCounts(
        original_bytes=total.original_bytes,
        original_sides=bars(total.original_sides),
        original_sizes=bars(total.original_sizes),
        stored_sides=bars(total.stored_sides),
        digests=DigestCount(total.digests[True], total.digests[False], total.digests[None])
        if known
        else None,
    )


def count_hosts(images: Dataset, num_worst: int) -> HostReport:
    """Count URLs by host, and find the hosts with most failures."""
    parts: list[pa.Table] = []
    for dataset, columns in ((images, ("url",)), (images.table("rejects"), ("url", "reason"))):
        for part in over_ranges(dataset, columns, _hosts):
            parts.append(part)
            if len(parts) == _MERGED:
                parts = [_merged(parts)]
    counts = _merged(parts or [_hosts(pa.table({"url": pa.array([], pa.string())}))])
    num_hosts = pc.count_distinct(counts["host"]).as_py()
    return HostReport(num_hosts, tuple(worst_hosts(counts, num_worst)))


def worst_hosts(counts: pa.Table, number: int) -> Iterator[HostCount]:
    """Yield the hosts with most failures; ``counts`` has the columns host, reason and rows."""
    failures = counts.filter(pc.not_equal(counts["reason"], STORED))
    by_host = failures.group_by("host").aggregate([("rows", "sum")])
    order = [("rows_sum", "descending"), ("host", "ascending")]
    for row in by_host.sort_by(order).slice(0, number).to_pylist():
        mine = counts.filter(pc.equal(counts["host"], row["host"])).to_pylist()
        reasons = [other for other in mine if other["reason"] != STORED]
        most = min(reasons, key=lambda r: (-r["rows"], r["reason"]))
        tried = sum(other["rows"] for other in mine)
        yield HostCount(row["host"], tried, row["rows_sum"], most["reason"], most["rows"])


def hosts_of(urls: Any) -> Any:
    """Return the host of each URL in lower case; null for a string without one."""
    return pc.utf8_lower(pc.struct_field(pc.extract_regex(urls, _HOST), "host"))


def rows_by_reason(rejects: Dataset, reasons: Iterable[str], number: int) -> dict[str, list[int]]:
    """Return up to ``number`` row numbers of each reason, spread evenly over the rejects."""
    found = list(over_ranges(rejects, ("reason",), lambda table: table["reason"].combine_chunks()))
    column = pa.chunked_array(found, pa.string())
    return {
        reason: [int(rows[i]) for i in spread(len(rows), number)]
        for reason in reasons
        for rows in [np.flatnonzero(pc.equal(column, reason).to_numpy())]
    }


def find_rows(dataset: Dataset, ids: Sequence[str]) -> dict[str, int]:
    """Return the row numbers of samples by their ids; unknown ids are left out."""
    wanted = pa.array(ids, pa.string())

    def matches(table: pa.Table) -> list[tuple[int, str]]:
        names = table["sample_id"]
        indices = np.flatnonzero(pc.is_in(names, wanted).to_numpy())
        return [(int(i), names[int(i)].as_py()) for i in indices]

    ranges = over_ranges(dataset, ("sample_id",), matches) if ids else []
    return {name: i * _ROWS + row for i, part in enumerate(ranges) for row, name in part}


def over_ranges(
    dataset: Dataset, columns: Sequence[str], count: Callable[[pa.Table], T]
) -> Iterator[T]:
    """Yield the result of ``count`` for each range of rows, in order."""

    def one(start: int) -> T:
        return count(dataset.read(start, start + _ROWS, columns))

    with ThreadPoolExecutor(_READERS) as pool:
        yield from pool.map(one, range(0, dataset.num_rows, _ROWS))


def bars(bins: Counter[int]) -> tuple[Bar, ...]:
    """Return the bars from the first to the last bin that is not empty."""
    made = []
    for number in range(min(bins, default=0), max(bins, default=-1) + 1):
        low = math.ceil(2 ** (number / _BINS_PER_DOUBLING))
        high = math.ceil(2 ** ((number + 1) / _BINS_PER_DOUBLING)) - 1
        if low <= high:
            made.append(Bar(low, high, bins[number]))
    return tuple(made)


def _sums(table: pa.Table) -> _Sums:
    def shorter(width: str, height: str) -> Counter[int]:
        return _bins(pc.min_element_wise(table[width], table[height]))

    return _Sums(
        original_bytes=pc.sum(table["original_bytes"]).as_py() or 0,
        original_sides=shorter("original_width", "original_height"),
        original_sizes=_bins(table["original_bytes"]),
        stored_sides=shorter("width", "height"),
        digests=_counted(table["hash_matches"]),
    )


def _bins(values: Any) -> Counter[int]:
    positive = values.filter(pc.greater(values, 0))
    octaves = pc.log2(positive.cast(pa.float64()))
    return _counted(pc.floor(pc.multiply(octaves, _BINS_PER_DOUBLING)).cast(pa.int32()))


def _counted(values: Any) -> Counter[Any]:
    return Counter({row["values"]: row["counts"] for row in pc.value_counts(values).to_pylist()})


def _hosts(table: pa.Table) -> pa.Table:
    """Count rows by host and reason; rows without a host are left out."""
    has_reason = "reason" in table.column_names
    reasons = table["reason"] if has_reason else pa.repeat(STORED, table.num_rows)
    both = pa.table({"host": hosts_of(table["url"]), "reason": reasons})
    both = both.filter(pc.is_valid(both["host"]))
    counted = both.group_by(["host", "reason"]).aggregate([([], "count_all")])
    return counted.rename_columns(["host", "reason", "rows"])


def _merged(parts: Sequence[pa.Table]) -> pa.Table:
    summed = pa.concat_tables(parts).group_by(["host", "reason"]).aggregate([("rows", "sum")])
    return summed.rename_columns(["host", "reason", "rows"])
