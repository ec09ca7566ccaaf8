"""Input rows: images, texts, or texts about one or two images; and the bytes of their images.

A row says where its image lies, so the listing of a million images copies none of them.
"""

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, Literal, cast

import pyarrow as pa
import pyarrow.parquet as pq

from dataprep.sources.folders import read_file
from dataprep.sources.members import DAMAGED_FILE, MISSING_FILE, MemberError
from dataprep.sources.names import safe_name
from dataprep.sources.parquet_files import PARQUET_DAMAGE

ROWS: Final = pa.schema(
    [
        ("id", pa.string()),
        ("path", pa.string()),
        ("row", pa.int64()),
        ("file", pa.binary()),
        ("column", pa.string()),
        ("second_path", pa.string()),
        ("second_file", pa.binary()),
        ("second_column", pa.string()),
        ("text", pa.string()),
        ("second_text", pa.string()),
    ]
)
"""One row per input.

| field | content |
|---|---|
| ``id`` | path of the input, for a row of a file followed by ``:`` and its number |
| ``path`` | absolute path of the image, or of the file that holds the row |
| ``row`` | number of the row or line in its file, from 1; null for an image file |
| ``file`` | file of the image, in bytes, as a name need not be UTF-8; null if there is no image |
| ``column`` | Parquet column of ``file`` that holds the image; null if ``file`` is the image |
| ``second_path``, ``second_file``, ``second_column`` | the same of the second image; else null |
| ``text`` | the text, or what is asked or said of the images; null if there is none |
| ``second_text`` | the second text of a pair of texts that are read together; else null |
"""

Kind = Literal["image", "text", "image and text", "two images and text"]
"What a row holds."
Which = Literal["", "second_"]
"Prefix of the columns that say where an image of a row lies."
_CACHED_GROUPS: Final = 2


def kind_of(row: Mapping[str, Any]) -> Kind:
    """Return what a row of ``ROWS`` holds."""
    if row["file"] is None:
        return "text"
    if row["second_file"] is not None:
        return "two images and text"
    return "image" if row["text"] is None else "image and text"


def image_bytes(row: Mapping[str, Any], which: Which = "") -> bytes:
    """Return the bytes of an image of a row.

    Args:
        row: of ``ROWS``, with an image.
        which: prefix of the columns of its only or first image, or of its second.

    Raises:
        MemberError: they cannot be read.
    """
    path, column = Path(os.fsdecode(row[f"{which}file"])), row[f"{which}column"]
    if column is None:
        return read_file(path, safe_name(path.name))
    try:
        cell = _cell(path, column, row["row"] - 1)
    except PARQUET_DAMAGE as error:
        raise MemberError(DAMAGED_FILE, f"{safe_name(str(path))}: {_words(error)}") from None
    name = cell["path"] if isinstance(cell, dict) else None
    data = cell["bytes"] if isinstance(cell, dict) else cell
    if data:
        return bytes(data)
    if data is None and name and "\0" not in name:
        return read_file(path.parent / name, safe_name(name))
    raise MemberError(MISSING_FILE, f"row {row['row']} has no image in {column}")


def image_type(kind: pa.DataType) -> str | None:
    """Return how a Parquet column holds images: ``bytes``, ``struct`` or ``path``; None if not.

    A struct with a field ``bytes`` is what the library ``datasets`` writes; where that is null, its
    field ``path`` names the file of the image, relative to the folder of the Parquet file.
    """
    if pa.types.is_struct(kind):
        fields = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
        return "struct" if "bytes" in fields and _is_binary(fields["bytes"]) else None
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if _is_binary(kind):
        return "bytes"
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return "path" if any(check(kind) for check in texts) else None


def _cell(path: Path, column: str, number: int) -> bytes | dict[str, Any] | None:
    """Return a cell by its row number, from 0; rows that follow each other are read at once.

    It is bytes, or ``bytes`` and ``path`` of a struct.
    """
    status = path.stat()
    ends = _group_ends(path, status.st_size, status.st_mtime_ns)
    group = next(i for i, end in enumerate(ends) if number < end)
    cells = _group_column(path, column, group, status.st_size, status.st_mtime_ns)
    cell = cells[number - (ends[group - 1] if group else 0)].as_py()
    if isinstance(cell, dict):
        name = cell.get("path")
        return {"bytes": cell["bytes"], "path": name if isinstance(name, str) else None}
    return cast(bytes | None, cell)


@lru_cache(_CACHED_GROUPS)
def _group_ends(path: Path, _size: int, _modified_ns: int) -> Sequence[int]:
    with pq.ParquetFile(path) as file:
        groups = map(file.metadata.row_group, range(file.num_row_groups))
        return list(accumulate(group.num_rows for group in groups))


@lru_cache(_CACHED_GROUPS)
def _group_column(
    path: Path, column: str, group: int, _size: int, _modified_ns: int
) -> pa.ChunkedArray:
    with pq.ParquetFile(path) as file:
        return file.read_row_group(group, columns=[column]).column(0)


def _is_binary(kind: pa.DataType) -> bool:
    checks = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return any(check(kind) for check in checks)


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())
