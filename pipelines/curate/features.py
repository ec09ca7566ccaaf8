"""The columns that curation reads, as arrays: a few dozen bytes per image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestration import Dataset

_COLUMNS: Final = (
    "sha256",
    "phash",
    "colors",
    "captions",
    "original_width",
    "original_height",
)
_UNSPACED_SCRIPTS: Final = (
    (r"[\p{Han}\p{Hiragana}\p{Katakana}ー々〆]", 2),
    (r"[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]", 4),
    (r"[\p{Tibetan}\p{Javanese}\p{Balinese}\p{Tai_Tham}\p{New_Tai_Lue}]", 4),
)
"Characters of scripts without spaces between words, and characters per word."
_UNSPACED_MARKS: Final = "[\u3000-\u303f\uff01-\uff0f\uff1a-\uff1f]"
"Punctuation of these scripts."


@dataclass(frozen=True)
class Features:
    """Columns over the images of all datasets, one dataset after the other."""

    dataset: NDArray[np.int32]
    "Number of the dataset."
    row: NDArray[np.int64]
    "Row number within the dataset."
    digest: NDArray[np.uint64]
    "First 64 bits of the original's SHA-256."
    phash: NDArray[np.uint64]
    "Perceptual hash."
    colors: NDArray[np.uint8]
    "(N, 3 x grid cells): mean RGB of each cell; see ``dataprep.images.look_of``."
    width: NDArray[np.int32]
    "Original width in pixels."
    height: NDArray[np.int32]
    "Original height in pixels."
    num_captions: NDArray[np.int64]
    "Number of different captions over all rows with the same original, one caption per row."
    has_fitting_caption: NDArray[np.bool_]
    "Whether one of the captions has a number of words within the bounds."

    def __len__(self) -> int:
        return len(self.row)


def read_features(datasets: Sequence[Dataset], min_words: int, max_words: int) -> Features:
    """Read the columns of several datasets.

    Args:
        datasets: with the columns of the images table.
        min_words: smallest number of words of a fitting caption.
        max_words: largest number of words of a fitting caption.
    """
    tables = [dataset.read(columns=_COLUMNS) for dataset in datasets]
    table = pa.concat_tables(tables)
    # 64 bits suffice: two of 30 million different originals collide with probability 1 in 40,000.
    digest = _numbers(pc.utf8_slice_codeunits(table["sha256"], 0, 16))
    captions = table["captions"]
    lengths = pc.list_value_length(captions).fill_null(0).to_numpy()
    owners = np.repeat(np.arange(table.num_rows), lengths)
    texts = pc.utf8_trim_whitespace(pc.list_flatten(captions))
    words = count_words(texts)
    fits = (words >= min_words) & (words <= max_words) & (pc.utf8_length(texts).to_numpy() > 0)
    begins = np.flatnonzero(np.diff(owners, prepend=-1))
    firsts = texts.take(pa.array(begins))
    return Features(
        dataset=np.repeat(np.arange(len(tables), dtype=np.int32), [t.num_rows for t in tables]),
        row=np.concatenate([np.arange(t.num_rows) for t in tables]),
        digest=digest,
        phash=_numbers(table["phash"]),
        colors=_bytes(table["colors"]),
        width=table["original_width"].to_numpy(),
        height=table["original_height"].to_numpy(),
        num_captions=_distinct(digest, digest[owners[begins]], firsts),
        has_fitting_caption=np.bincount(owners, fits, table.num_rows).astype(bool),
    )


def count_words(texts: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return the number of words of each text.

    Words are separated by spaces, except in scripts that are written without: there, a word is
    counted for each few characters, rounded up, as many as its words have on average.
    """
    num_words = np.zeros(len(texts), np.int64)
    for characters, mean_length in _UNSPACED_SCRIPTS:
        num_characters = pc.count_substring_regex(texts, characters).to_numpy()
        num_words += -(-num_characters // mean_length)
        texts = pc.replace_substring_regex(texts, characters + "+", " ")
    texts = pc.replace_substring_regex(texts, _UNSPACED_MARKS, " ")
    spaced = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(texts))
    has_spaced = pc.utf8_length(pc.utf8_trim_whitespace(texts)).to_numpy() > 0
    return num_words + np.where(has_spaced, pc.list_value_length(spaced).to_numpy(), 0)


def _numbers(column: pa.ChunkedArray) -> NDArray[np.uint64]:
    """Convert strings of 16 hexadecimal digits to numbers."""
    joined = [bytes.fromhex("".join(chunk.to_pylist())) for chunk in column.chunks]
    return np.frombuffer(b"".join(joined), ">u8").astype(np.uint64)


def _bytes(column: pa.ChunkedArray) -> NDArray[np.uint8]:
    joined = b"".join(b"".join(chunk.to_pylist()) for chunk in column.chunks)
    return np.frombuffer(joined, np.uint8).reshape(len(column), -1)


def _distinct(
    digests: NDArray[np.uint64], owners: NDArray[np.uint64], texts: pa.ChunkedArray
) -> NDArray[np.int64]:
    """Return, for each digest, the number of different texts of its owners."""
    counted = (
        pa.table({"digest": owners, "text": texts})
        .group_by("digest")
        .aggregate([("text", "count_distinct")])
    )
    keys, numbers = counted["digest"].to_numpy(), counted["text_count_distinct"].to_numpy()
    if not len(keys):
        return np.zeros(len(digests), np.int64)
    order = np.argsort(keys)
    nearest = order[np.minimum(np.searchsorted(keys[order], digests), len(keys) - 1)]
    return np.where(keys[nearest] == digests, numbers[nearest], 0)
