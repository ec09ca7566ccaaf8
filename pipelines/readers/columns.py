"""Columns of a table as NumPy arrays, as far as possible without a copy.

``to_numpy`` imports pandas first, and ``to_pylist`` makes an object for each value.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def matrix(column: pa.ChunkedArray) -> NDArray[np.uint16]:
    """Return (rows, n) from a column of fixed-size lists."""
    lists = _one_array(column)
    return np.asarray(np.from_dlpack(lists.flatten()), np.uint16).reshape(len(lists), -1)


def joined(column: pa.ChunkedArray) -> tuple[NDArray[np.uint8], list[int]]:
    """Return the bytes of a binary column's values, one after another, and where each one ends."""
    values = _one_array(column).cast(pa.binary())  # no copy, unless of another width of offsets
    _, offsets, data = values.buffers()
    bounds = np.frombuffer(offsets, np.int32)[values.offset :][: len(values) + 1]
    return (
        np.frombuffer(data, np.uint8)[bounds[0] : bounds[-1]],
        (bounds[1:] - bounds[0]).tolist(),
    )


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    # combine_chunks copies even a single chunk.
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
