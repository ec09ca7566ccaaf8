"""First round: what curation needs to know of each image, in a few hundred bytes.

Each slice writes two tables: ``digests`` (key ``digest``), by which equal originals are found, and
``looks`` (key ``key``, the mixed perceptual hash), by which near duplicates are found. Only images
that pass the rules for single images have a look there.
"""

from hashlib import blake2b
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dataprep.captions import caption_faults, caption_number
from dataprep.image_hashes import COLOR_GRID, GRAY_GRID
from orchestration import Output, Slice
from pipelines.curate.exchange import mixed, written
from pipelines.curate.layout import Chunk, Layout
from pipelines.curate.rules import KEPT, REASONS, Params

_COLUMNS: Final = (
    "sha256",
    "phash",
    "colors",
    "gray",
    "captions",
    "url",
    "original_width",
    "original_height",
)
_LOOK_COLUMNS: Final = {
    "colors": 3 * COLOR_GRID**2,
    "gray": GRAY_GRID**2,
}
"Bytes of each grid."


def read_features(params: Params, layout: Layout, slice_: Slice) -> Output:
    """Write the digests and looks of a slice."""
    digests, looks = [], []
    for chunk in layout.chunks(slice_, _COLUMNS):
        verdict = own_verdict(params, layout, chunk)
        table = chunk.table
        global_row = np.arange(chunk.global_row, chunk.global_row + table.num_rows)
        digests.append(
            {
                "digest": _digest(table["sha256"]),
                "global_row": global_row,
                "caption": _first_captions(table["captions"]),
                "address": _addresses(table["url"], global_row),
                "passes": verdict == KEPT,
            }
        )
        phash = _words(table["phash"], 1)[:, 0]
        columns = {
            "key": mixed(phash),
            "phash": phash,
            "global_row": global_row,
            "width": table["original_width"].to_numpy(),
            "height": table["original_height"].to_numpy(),
            **{name: _bytes(table[name], size) for name, size in _LOOK_COLUMNS.items()},
        }
        looks.append({name: values[verdict == KEPT] for name, values in columns.items()})
    return Output(
        num_rows_in=slice_.payload["stop"] - slice_.payload["start"],
        tables={
            **written("digests", _joined(digests), "digest"),
            **written("looks", _joined(looks), "key"),
        },
    )


def own_verdict(params: Params, layout: Layout, chunk: Chunk) -> NDArray[np.int8]:
    """Return the verdict on each row by the rules for single images."""
    table = chunk.table
    verdict = np.full(table.num_rows, KEPT, np.int8)
    if chunk.global_row < layout.first_source_row:
        return verdict  # evaluation images are always kept
    width = table["original_width"].to_numpy()
    height = table["original_height"].to_numpy()
    shorter, longer = np.minimum(width, height), np.maximum(width, height)
    verdict[longer > params.max_aspect_ratio * shorter] = REASONS.index("aspect")
    verdict[shorter < params.min_original_side] = REASONS.index("small_original")
    if chunk.global_row < layout.first_image_row:
        faults = caption_faults(
            table["captions"], params.min_caption_words, params.max_caption_words
        )
        has_none = np.array([None not in mine for mine in faults], bool)
        verdict[has_none] = REASONS.index("caption_length")
    return verdict


def _digest(column: pa.ChunkedArray) -> NDArray[np.uint64]:
    """Return 64 bits of each SHA-256.

    They suffice: two of 100 million different originals collide with probability 1 in 3,700.
    """
    digest = np.zeros(len(column), np.uint64)
    for word in _words(column, 4).T:
        digest = mixed(digest ^ word)
    return digest


def _first_captions(column: pa.ChunkedArray) -> NDArray[np.uint64]:
    """Return a number for the first caption of each row; 0 if it has none."""
    lengths = pc.list_value_length(column).fill_null(0).to_numpy()
    result = np.zeros(len(column), np.uint64)
    starts = np.cumsum(lengths) - lengths
    has_caption = lengths > 0
    texts = pc.list_flatten(column).cast(pa.large_string())
    firsts = texts.take(pa.array(starts[has_caption])).to_pylist()
    result[has_caption] = np.array([caption_number(text) for text in firsts], np.uint64)
    return result


def _addresses(column: pa.ChunkedArray, global_row: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return a number for the address of each row; a row without one has an address of its own."""
    numbers = mixed(global_row.astype(np.uint64)) | np.uint64(1)
    has_address = column.is_valid().to_numpy()
    texts = column.filter(column.is_valid()).to_pylist()
    numbers[has_address] = np.array([_number(text) for text in texts], np.uint64)
    return numbers


def _number(address: str) -> int:
    digest = blake2b(address.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") | 1


def _words(column: pa.ChunkedArray, num_words: int) -> NDArray[np.uint64]:
    """Convert strings of 16 hexadecimal digits per word: (N, words)."""
    joined = [bytes.fromhex("".join(chunk.to_pylist())) for chunk in column.chunks]
    words = np.frombuffer(b"".join(joined), ">u8").astype(np.uint64)
    return words.reshape(-1, num_words)


def _bytes(column: pa.ChunkedArray, size: int) -> NDArray[np.uint8]:
    joined = b"".join(b"".join(chunk.to_pylist()) for chunk in column.chunks)
    return np.frombuffer(joined, np.uint8).reshape(-1, size)


def _joined(chunks: list[dict[str, NDArray[np.generic]]]) -> dict[str, NDArray[np.generic]]:
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
