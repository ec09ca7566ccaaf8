"""The tables that a rehearsal at full row counts starts from, drawn without images.

Each drawn stage is the recipe's own, with its name, parameters and fingerprint; only its ``run`` is
replaced. So the engine plans, commits and reads the outputs as if the stages themselves had made
them. Slices and row groups have the sizes of the real ones. Every image is the same JPEG of one
pixel; looks are those of ``drawn_looks.py``; texts are stretches of one long text of drawn words.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import accumulate
from typing import Any, Final

import numpy as np
import pyarrow as pa
from drawn_looks import looks, words
from numpy.typing import NDArray

from dataprep.images import encode_jpeg
from dataprep.schemas import DOCUMENTS, IMAGES, INDEX, REJECTS
from orchestration import Context, Output, Slice, Stage
from orchestration.slices import range_slices

Ints = NDArray[np.int64]

_JPEG: Final = encode_jpeg(np.full((1, 1, 3), 128, np.uint8), 95)
_NUM_WORDS: Final = 50_000
_TEXT_WORDS: Final = 1 << 20
_WORDS_PER_LINE: Final = 40
_CAPTION_WORDS: Final = (5, 12)
_NUM_HOSTS: Final = 500_000
_REASONS: Final = np.array(["http_404", "timeout", "dns", "http_403", "not_an_image"], object)
_INDEX_ROWS: Final = 50_000
_DOWNLOAD_ROWS: Final = 2048
_SEED: Final = 7


@dataclass(frozen=True)
class Images:
    """Rows of a source of images at the full size."""

    listed: int
    "Rows of its list, or images of its archive."
    stored: float
    "Fraction of them that is stored; the others are rejects."
    captions: int
    "Captions of an image."
    slice_rows: int = _DOWNLOAD_ROWS


@dataclass(frozen=True)
class Documents:
    """Documents of a corpus at the full size."""

    documents: int
    slice_rows: int


SOURCES: Final[Mapping[str, Images | Documents]] = {
    "coco_eval": Images(10_000, 1, 5),
    "flickr30k": Images(2_000, 1, 5),
    "vqav2_test": Images(81_434, 1, 0),
    "nlvr2": Images(107_292, 1, 0),
    "cc3m": Images(3_318_333, 0.88, 1),
    "cc12m": Images(12_423_374, 0.883, 1),
    "sbu": Images(1_000_000, 0.86, 1),
    "coco": Images(113_287, 1, 5),
    "visual_genome": Images(108_077, 1, 50),
    "imagenet21k": Images(14_197_122, 1, 0, slice_rows=650),  # a synset is a slice
    "wikipedia": Documents(6_458_670, slice_rows=2000),
    "openwebtext": Documents(8_013_769, slice_rows=400),
}
"Published sizes: 15M images with 21M captions, 14M images without, 14M documents."


def drawn(stages: Sequence[Stage], fraction: float, chars_per_document: int) -> Iterator[Stage]:
    """Yield the stages of the sources, each with a ``run`` that draws its output.

    Args:
        stages: of a workflow; those that read no source are left out.
        fraction: of the full number of rows.
        chars_per_document: mean length of a document.
    """
    counts = {name: scaled(source, fraction) for name, source in SOURCES.items()}
    firsts = dict(zip(counts, accumulate(counts.values(), initial=0), strict=False))
    total = sum(counts.values())
    for stage in stages:
        kind, _, name = stage.name.partition("/")
        source = SOURCES.get(name)
        if isinstance(source, Documents):
            draw = partial(_documents, name, chars_per_document)
            tables: Mapping[str, pa.Schema] = {"data": DOCUMENTS, "rejects": REJECTS}
            rows, groups = source.slice_rows, 1024
        elif source is not None and kind == "index":
            draw = partial(_index, name, source, firsts[name])
            tables, rows, groups = {"data": INDEX, "rejects": REJECTS}, _INDEX_ROWS, 1024
        elif source is not None:
            draw = partial(_images, name, source, firsts[name], total)
            tables, rows, groups = {"data": IMAGES, "rejects": REJECTS}, source.slice_rows, 256
        else:
            continue
        slices = range_slices(counts[name], rows)
        yield replace(stage, run=partial(_run, slices, draw, tables, groups))


def scaled(source: Images | Documents, fraction: float) -> int:
    """Return the rows of a source at a fraction of the full size."""
    rows = source.documents if isinstance(source, Documents) else source.listed
    return math.ceil(rows * fraction)


def _run(
    slices: Sequence[Slice],
    draw: Any,
    schemas: Mapping[str, pa.Schema],
    row_group_rows: int,
    context: Context,
) -> None:
    context.map_slices(slices, draw, row_group_rows=row_group_rows)
    context.commit(slices, schemas=schemas)


def _index(name: str, source: Images, first: int, slice_: Slice) -> Output:
    rows = _rows_of(slice_)
    columns = {
        "sample_id": [f"{name}/{row:09d}" for row in rows.tolist()],
        "source": pa.repeat(name, len(rows)),
        "url": _urls(rows + first),
        "captions": _captions(rows + first, source.captions),
    }
    return Output(len(rows), {"data": _table(columns, INDEX), "rejects": REJECTS.empty_table()})


def _images(name: str, source: Images, first: int, num_rows: int, slice_: Slice) -> Output:
    rows = _rows_of(slice_)
    is_stored = _uniform(rows + first, 9) < source.stored
    rejects, rows = rows[~is_stored], rows[is_stored]
    numbers = rows + first
    has_captions, is_listed = source.captions > 0, source.stored < 1
    width, height = (words(numbers, purpose)[:, 0] % np.uint64(900) + 300 for purpose in (10, 11))
    columns = {
        "sample_id": [f"{name}/{row:09d}" for row in rows.tolist()],
        "source": pa.repeat(name, len(rows)),
        "jpeg": pa.repeat(_JPEG, len(rows)),
        "width": np.ones(len(rows), np.int32),
        "height": np.ones(len(rows), np.int32),
        "original_width": width.astype(np.int32),
        "original_height": height.astype(np.int32),
        "original_bytes": (width * height // np.uint64(4)).astype(np.int64),
        **looks(numbers, num_rows),
        "captions": _captions(numbers, source.captions),
        "label": pa.repeat("" if has_captions else f"n{slice_.id}", len(rows)),
        **({"url": _urls(numbers)} if is_listed else {}),
    }
    dropped = {
        "sample_id": [f"{name}/{row:09d}" for row in rejects.tolist()],
        "source": pa.repeat(name, len(rejects)),
        "reason": _REASONS[words(rejects, 12)[:, 0] % np.uint64(len(_REASONS))],
        "detail": pa.repeat("drawn", len(rejects)),
        "url": _urls(rejects + first),
    }
    tables = {"data": _table(columns, IMAGES), "rejects": _table(dropped, REJECTS)}
    return Output(len(rows) + len(rejects), tables)


def _documents(name: str, chars_per_document: int, slice_: Slice) -> Output:
    rows, text = _rows_of(slice_), _long_text()[1]
    # Log-normal lengths: most documents are short, a few are many times as long as the mean.
    normal = np.random.default_rng((_SEED, slice_.payload["start"])).normal(0, 1, len(rows))
    lengths = (chars_per_document * np.exp(normal - 0.5)).astype(np.int64).clip(20, len(text) // 2)
    starts = words(rows, 13)[:, 0] % np.uint64(len(text) // 2)
    columns = {
        "doc_id": [f"{name}/{row:09d}" for row in rows.tolist()],
        "source": pa.repeat(name, len(rows)),
        "text": [
            text[start : start + length]
            for start, length in zip(starts.tolist(), lengths.tolist(), strict=True)
        ],
    }
    tables = {"data": _table(columns, DOCUMENTS), "rejects": REJECTS.empty_table()}
    return Output(len(rows), tables)


def _rows_of(slice_: Slice) -> Ints:
    return np.arange(slice_.payload["start"], slice_.payload["stop"])


def _table(columns: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    number = len(next(iter(columns.values())))
    missing = {field.name: pa.nulls(number, field.type) for field in schema}
    return pa.table(missing | dict(columns), schema=schema)


def _uniform(rows: Ints, purpose: int) -> NDArray[np.float64]:
    return words(rows, purpose)[:, 0] / 2.0**64


def _urls(rows: Ints) -> list[str]:
    """Return addresses; a few hosts have many of them, as in the real lists."""
    hosts = (_uniform(rows, 14) ** 3 * _NUM_HOSTS).astype(np.int64)
    return [
        f"https://host{host}.example/images/{row}.jpg"
        for host, row in zip(hosts.tolist(), rows.tolist(), strict=True)
    ]


def _captions(rows: Ints, number: int) -> pa.Array:
    """Return ``number`` captions of each row; where there are many, between half and twice that."""
    counts = np.full(len(rows), number, np.int64)
    if number > 5:
        counts = (number * (0.5 + _uniform(rows, 15))).astype(np.int64)
    shortest, longest = _CAPTION_WORDS
    row = np.repeat(rows, counts)
    member = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    keys = words(row * 128 + member, 16, 2)
    stream = _long_text()[0]
    starts = keys[:, 0] % np.uint64(len(stream) - longest)
    lengths = keys[:, 1] % np.uint64(longest - shortest + 1) + np.uint64(shortest)
    texts = [
        " ".join(stream[start : start + length])
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True)
    ]
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, pa.array(texts, pa.string()))


@lru_cache(maxsize=1)
def _long_text() -> tuple[list[str], str]:
    """Return drawn words, frequent ones being short, and the same as lines of text."""
    rng = np.random.default_rng(_SEED)
    syllables = [a + b for a in "bcdfghklmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er")]
    lengths = 1 + np.log10(1 + np.arange(_NUM_WORDS)).astype(int)
    vocabulary = ["".join(rng.choice(syllables, length)) for length in lengths]
    ranks = np.minimum(rng.zipf(1.3, _TEXT_WORDS) - 1, _NUM_WORDS - 1)
    stream = [vocabulary[rank] for rank in ranks.tolist()]
    lines = [
        " ".join(stream[start : start + _WORDS_PER_LINE])
        for start in range(0, _TEXT_WORDS, _WORDS_PER_LINE)
    ]
    return stream, "\n".join(lines)
