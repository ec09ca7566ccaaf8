"""Columns as NumPy arrays hold what Arrow's own conversion gives, for any slice and chunks."""

import numpy as np
import pyarrow as pa
import pytest

from pipelines.readers.columns import joined, matrix

VALUES = [b"one", b"", b"three" * 100, b"\x00\xff"]
LISTS = [[1, 2], [3, 65_535], [5, 6], [0, 8]]
SLICES = [(0, 4), (1, 3), (2, 3), (1, 2), (0, 0)]


def columns(values: list, kind: pa.DataType) -> list[pa.ChunkedArray]:
    whole = pa.array(values, kind)
    return [pa.chunked_array([whole]), pa.chunked_array([whole[:1], whole[1:1], whole[1:]])]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()], ids=str)
@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(("start", "stop"), SLICES)
def test_bytes_are_joined_with_their_ends(start, stop, number, kind):
    data, ends = joined(columns(VALUES, kind)[number].slice(start, stop - start))
    assert data.tobytes() == b"".join(VALUES[start:stop])
    assert ends == np.cumsum([len(value) for value in VALUES[start:stop]]).tolist()


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(("start", "stop"), SLICES[:-1])
def test_lists_of_one_length_are_a_matrix(start, stop, number):
    column = columns(LISTS, pa.list_(pa.uint16(), 2))[number]
    assert matrix(column.slice(start, stop - start)).tolist() == LISTS[start:stop]
