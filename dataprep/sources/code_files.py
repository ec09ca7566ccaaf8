"""Codes of views that another tokenizer made: Parquet files with a row for each view of an image.

===========  ===========================  =====================================================
column       type                         content
===========  ===========================  =====================================================
sample_id    string                       of the image, as in the token tables
view         integer                      number of the view, from 0, in the order of ``views``
codes        list of integers             codes of the patches, row by row from the top left
===========  ===========================  =====================================================

The rows may have any order. An index says which row groups have rows of an image, so that a reader
of few images reads few row groups; the price of another order than that of the images is that it
reads most of them.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dataprep.sources.lines import ListError
from dataprep.sources.own_lists import check_columns
from dataprep.sources.parquet_files import PARQUET_DAMAGE, open_parquet

COLUMNS: Final = ("sample_id", "view", "codes")
NO_CODES: Final = "no_codes"
WRONG_SHAPE: Final = "wrong_shape"
OUT_OF_RANGE: Final = "code_out_of_range"
INDEX: Final = np.dtype([("id", "<u8"), ("group", "<u4")])
"A row of the index: the hash of an image's id, and the number of a row group that has rows of it."
_CACHED_GROUPS: Final = 2
GROUPS_HELD: Final = 8
"Measured memory of a reader, in row groups: its cache, and the copies while one is decoded."
_ROWS: Final = pa.schema(
    [("sample_id", pa.string()), ("view", pa.int64()), ("codes", pa.large_list(pa.int64()))]
)


@dataclass(frozen=True)
class CodeGroup:
    """A row group of one of the files."""

    path: str
    number: int
    "Within its file."


def check_code_file(path: Path) -> None:
    """Check the columns of a file of codes.

    Raises:
        ListError: the file is not Parquet, misses a column, or a column has another type.
    """
    schema = open_parquet(path).schema_arrow
    check_columns(path, schema.names, COLUMNS)
    checks = (_is_string, pa.types.is_integer, _is_integer_list)
    expected = ("string", "an integer", "a list of integers")
    for name, check, words in zip(COLUMNS, checks, expected, strict=True):
        if not check(kind := schema.field(name).type):
            raise ListError(f"{path}: column {name} is of type {kind}, expected {words}")


def _is_string(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return any(
        check(kind)
        for check in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    )


def _is_integer_list(kind: pa.DataType) -> bool:
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(check(kind) for check in lists) and pa.types.is_integer(kind.value_type)


def code_groups(paths: Iterable[Path]) -> list[CodeGroup]:
    """Return the row groups of checked files, in their order.

    Raises:
        ListError: a file is not Parquet.
    """
    return [
        CodeGroup(str(path), number)
        for path in paths
        for number in range(open_parquet(path).num_row_groups)
    ]


def largest_group_bytes(paths: Iterable[Path]) -> int:
    """Return the bytes of the codes of the largest row group in memory, in the type of its file.

    Raises:
        ListError: a file is not Parquet.
    """
    largest = 0
    for path in paths:
        footer = open_parquet(path).metadata
        for group in map(footer.row_group, range(footer.num_row_groups)):
            for leaf in map(group.column, range(group.num_columns)):
                if leaf.path_in_schema.partition(".")[0] == "codes":
                    size = 4 if leaf.physical_type == "INT32" else 8
                    largest = max(largest, leaf.num_values * size)
    return largest


def index_of(groups: Sequence[CodeGroup]) -> NDArray[np.void]:
    """Return the index of row groups, of type :data:`INDEX` and sorted by the hash of the id.

    Raises:
        ListError: a row group is damaged.
    """
    rows = []
    for number, group in enumerate(groups):
        ids = pc.unique(_read(group, ["sample_id"])["sample_id"].drop_null())
        part = np.empty(len(ids), INDEX)
        part["id"], part["group"] = _hashes(ids), number
        rows.append(part)
    return np.sort(np.concatenate([np.empty(0, INDEX), *rows]), order=["id", "group"])


def _hashes(ids: pa.Array | pa.ChunkedArray) -> NDArray[np.uint64]:
    digests = (hashlib.blake2b(text.encode(), digest_size=8).digest() for text in ids.to_pylist())
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


class CodeFiles:
    """Reads the codes of images."""

    def __init__(self, groups: Sequence[CodeGroup], index: NDArray[np.void]) -> None:
        """Take the row groups and their index.

        Args:
            groups: as of :func:`code_groups`.
            index: as of :func:`index_of`; a memory map will do.
        """
        self._groups, self._index = groups, index
        # Row groups are often larger than what is asked for at once, and asked for again.
        self._group = lru_cache(_CACHED_GROUPS)(lambda n: _read(groups[n], COLUMNS))

    def codes_of(
        self, ids: pa.Array, num_views: int, num_patches: int, num_codes: int
    ) -> tuple[NDArray[np.uint16], dict[int, tuple[str, str]]]:
        """Return the codes of each image, and why some images have none.

        Args:
            ids: of the images; string, no id twice.
            num_views: k; rows of further views are left out.
            num_patches: N, codes of a view.
            num_codes: K, codes of the codebook, at most 65,536.

        Returns:
            codes: (images, k, N); zeros where the image has none.
            faults: reason and detail by number of the image.

        Raises:
            ListError: a row group is damaged.
        """
        rows = self._rows_of(ids, num_views)
        images = pc.index_in(rows["sample_id"], value_set=ids).to_numpy()
        views, lists = rows["view"].to_numpy(), rows["codes"].combine_chunks()
        found = np.zeros((len(ids), num_views), np.int64)
        np.add.at(found, (images, views), 1)
        faults: dict[int, tuple[str, str]] = {}
        for image, view in np.argwhere(found != 1)[::-1]:  # the first view with a fault is named
            number = found[image, view]
            words = f"view {view} has {number} rows" if number else f"view {view} has no row"
            faults[int(image)] = (WRONG_SHAPE if number else NO_CODES, words)
        lengths = pc.list_value_length(lists).fill_null(-1).to_numpy(zero_copy_only=False)
        for row in np.flatnonzero(lengths != num_patches):
            words = "null" if lengths[row] < 0 else f"{lengths[row]} codes"
            fault = (WRONG_SHAPE, f"view {views[row]} has {words}, expected {num_patches}")
            faults.setdefault(int(images[row]), fault)
        whole = np.flatnonzero(lengths == num_patches)
        flat = pc.list_flatten(lists.take(pa.array(whole)))
        is_null = flat.is_null().to_numpy(zero_copy_only=False).reshape(-1, num_patches)
        values = flat.fill_null(0).to_numpy().reshape(-1, num_patches)
        outside = (values < 0) | (values >= num_codes)
        for row in np.flatnonzero((is_null | outside).any(1)):
            view, image = views[whole[row]], int(images[whole[row]])
            if is_null[row].any():
                fault = (WRONG_SHAPE, f"view {view} has a null among its codes")
            else:
                code = int(values[row][outside[row]][0])
                fault = (OUT_OF_RANGE, f"view {view} has the code {code}, not in 0-{num_codes - 1}")
            faults.setdefault(image, fault)
        codes = np.zeros((len(ids), num_views, num_patches), np.uint16)
        codes[images[whole], views[whole]] = np.where(outside, 0, values)
        codes[list(faults)] = 0
        return codes, faults

    def _rows_of(self, ids: pa.Array, num_views: int) -> pa.Table:
        """Return the rows of some images with a view in 0 to ``num_views`` - 1."""
        hashes = _hashes(ids)
        known = self._index["id"]
        first, last = (np.searchsorted(known, hashes, side) for side in ("left", "right"))
        runs = [self._index["group"][a:b] for a, b in zip(first, last, strict=True) if a < b]
        numbers = np.unique(np.concatenate([np.empty(0, np.uint32), *runs]))
        tables = []
        for number in numbers.tolist():
            rows = self._group(number)
            view = rows["view"]
            wanted = pc.and_(
                pc.is_in(rows["sample_id"], value_set=ids),
                pc.and_(pc.greater_equal(view, 0), pc.less(view, num_views)),
            )
            # Not checked for overflow: a number beyond 63 bits becomes another one out of range.
            tables.append(rows.filter(wanted).cast(_ROWS, safe=False))
        return pa.concat_tables([_ROWS.empty_table(), *tables])


def _read(group: CodeGroup, columns: Sequence[str]) -> pa.Table:
    """Return columns of a row group; ids are strings, codes have the type of the file."""
    try:
        with pq.ParquetFile(group.path) as file:
            table = file.read_row_group(group.number, columns=list(columns))
        ids = table["sample_id"].cast(pa.string())
        return table.select(list(columns)).set_column(columns.index("sample_id"), "sample_id", ids)
    except PARQUET_DAMAGE as error:
        raise ListError(
            f"{group.path}: row group {group.number} cannot be read ({error}); write the file anew"
        ) from None
