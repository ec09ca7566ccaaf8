"""Drawn features of images with planted copies: what several benchmarks compare images by.

A fortieth of the rows are equal originals of earlier rows, another fortieth near duplicates. One
hash is that of 20,000 rows: half of them look the same, half of them are all different. A feature
depends on the row and the number of all rows alone.
"""

from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.curate.exchange import mixed, to_column

NUM_OF_ONE_HASH: Final = 20_000


def looks(rows: NDArray[np.int64], num_rows: int) -> dict[str, Any]:
    """Return the columns sha256, phash, colors and gray of some of ``num_rows`` rows."""
    kind = words(rows, 1)[:, 0] % np.uint64(40)
    earlier = (words(rows, 2)[:, 0] % np.maximum(rows, 1).astype(np.uint64)).astype(np.int64)
    is_equal, is_near = kind == 0, kind == 1
    every = max(num_rows // NUM_OF_ONE_HASH, 10)
    of_one_hash = rows % every == 0
    look = np.where(is_equal | is_near, earlier, rows)
    look[of_one_hash & (rows // every % 2 == 0)] = num_rows
    phash = words(look, 3)[:, 0] ^ np.where(is_near, np.uint64(5), np.uint64(0))
    phash[of_one_hash] = 12345
    return {
        "sha256": hexadecimal(words(np.where(is_equal, earlier, rows), 4, 4)),
        "phash": hexadecimal(phash[:, None]),
        "colors": to_column(words(look, 5, 6).view(np.uint8)).cast(pa.binary()),
        "gray": to_column(words(look, 6, 32).view(np.uint8)).cast(pa.binary()),
    }


def words(rows: NDArray[np.int64], purpose: int, number: int = 1) -> NDArray[np.uint64]:
    """Return random numbers that depend on the row and purpose alone: (N, number)."""
    keys = rows.astype(np.uint64)[:, None] * np.uint64(64) + np.arange(number, dtype=np.uint64)
    return mixed(mixed(keys) + np.uint64(purpose))


def hexadecimal(numbers: NDArray[np.uint64]) -> list[str]:
    """Return each row of numbers as one string."""
    return [row.tobytes().hex() for row in numbers]
