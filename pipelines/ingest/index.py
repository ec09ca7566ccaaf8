"""Index: list files → one row per usable entry.

Out: ``data`` (sample_id, source, url, captions) and ``rejects``.
Drops: ``malformed_line``, ``empty_caption``, ``bad_url``.
Nothing is fetched here, and nothing is looked up. A list whose rows are not as many as published
is told in the log and in the data_report report.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import pyarrow as pa
from pydantic import Field

from dataprep.sources import own_lists, sbu
from dataprep.sources.conceptual import read_cc3m, read_cc12m
from dataprep.sources.entries import BadEntry, Entry, index_tables
from dataprep.sources.hash_list import DIGESTS_FILE, KEYS_FILE, HashTable, make_table
from dataprep.sources.lines import LineRange, about_lines, line_ranges
from orchestration import Context, Output, Slice
from orchestration.errors import RecipeError
from orchestration.params import EXTERNAL_FILE, OR_URI, StageParams
from orchestration.reporting.usage import Expected
from orchestration.slices import range_slices
from orchestration.storage.remote_files import with_local_files
from orchestration.storage.store import Store
from pipelines.ingest.published_counts import published_numbers

_HASHES: Final = "hashes"
_HASH_COUNTS: Final = f"{_HASHES}/counts.json"
"Written last."

Entries = Iterator[Entry | BadEntry]


class ListParams(StageParams):
    """A list of pairs."""

    list: Annotated[str, EXTERNAL_FILE, OR_URI]
    "Path of the list file, or its http(s):// or s3:// URI."
    slice_lines: int = Field(default=50_000, ge=1)
    "Lines or rows of a slice."


class Cc3mParams(ListParams):
    """Conceptual Captions 3M."""

    format: Literal["cc3m"]


class Cc12mParams(ListParams):
    """Conceptual 12M."""

    format: Literal["cc12m"]
    hashes: Annotated[str | None, EXTERNAL_FILE, OR_URI] = None
    "Path or URI of its hash list; images are then marked as what they were, or not."


class SbuLinesParams(ListParams):
    """SBU as two files of lines."""

    format: Literal["sbu"]
    captions: Annotated[str, EXTERNAL_FILE, OR_URI]
    "Path or URI of the file of captions; ``list`` is the one of URLs."


class SbuJsonParams(ListParams):
    """SBU as one JSON object of lists."""

    format: Literal["sbu_json"]


class OwnListParams(ListParams):
    """An own list of pairs."""

    format: Literal["csv", "tsv", "jsonl_pairs", "parquet_pairs"]
    url_column: str = "url"
    caption_column: str = "caption"


Params = Cc3mParams | Cc12mParams | SbuLinesParams | SbuJsonParams | OwnListParams


def run(context: Context, params: Params, source: str) -> None:
    """Read the list, a slice of entries at a time."""
    local = context.local_files(params)
    slices = list(make_slices(local))
    numbers = hash_table(context, local)
    context.map_slices(slices, partial(read_slice, params, source, context.folder))
    rows = sum(piece.num_rows or 0 for piece in slices)
    numbers |= published_numbers(context.stage.name, params.format, rows=rows, file=local.list)
    context.commit(slices, numbers=numbers)


def hash_table(context: Context, params: Params) -> dict[str, float]:
    """Make the table of expected digests, if the list has one; return what it holds."""
    if not isinstance(params, Cc12mParams) or params.hashes is None:
        return {}
    if not context.folder.exists(_HASH_COUNTS):
        context.run_task(_make_hash_table, Path(params.hashes), context.folder)
    counts: dict[str, float] = json.loads(context.folder.read(_HASH_COUNTS))
    return counts


def _make_hash_table(path: Path, folder: Store) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        good, bad = make_table(path, Path(temporary))
        for name in (KEYS_FILE, DIGESTS_FILE):
            folder.write_file(f"{_HASHES}/{name}", Path(temporary) / name)
    counts = {"hash_lines": good, "bad_hash_lines": bad}
    folder.write_bytes(_HASH_COUNTS, json.dumps(counts).encode())


def expects(params: Params) -> Expected:
    """Say what is known beforehand: about one row a line."""
    path = Path(params.list)
    if isinstance(params, SbuJsonParams) or not path.exists():  # behind a URI, nobody has counted
        return Expected()
    if params.format == "parquet_pairs":
        return Expected(rows=parquet_rows(path))
    return Expected(rows=about_lines(path))


def parquet_rows(path: Path) -> int:
    """Return the rows of a Parquet file.

    Raises:
        RecipeError: it is none.
    """
    try:
        return int(own_lists.open_parquet(path).metadata.num_rows)
    except own_lists.ColumnError as error:
        raise RecipeError(str(error)) from None


def make_slices(params: Params) -> Iterator[Slice]:
    """Cut a list into slices.

    Raises:
        RecipeError: the file is not what the recipe says.
    """
    path = Path(params.list)
    try:
        if isinstance(params, SbuLinesParams):
            pieces = sbu.paired_ranges(path, Path(params.captions), params.slice_lines)
            for i, (urls, captions) in enumerate(pieces):
                payload = {"urls": vars(urls), "captions": vars(captions)}
                yield Slice(f"{i:06d}", payload, urls.num_lines)
        elif isinstance(params, SbuJsonParams):
            total = len(sbu.json_lists(path)[0])
            yield from range_slices(total, params.slice_lines)
        elif isinstance(params, OwnListParams):
            yield from _own_slices(params, path)
        else:
            yield from line_slices(path, params.slice_lines)
    except (sbu.SbuError, own_lists.ColumnError) as error:
        raise RecipeError(str(error)) from None


def _own_slices(params: OwnListParams, path: Path) -> Iterator[Slice]:
    columns = [params.url_column, params.caption_column]
    if params.format == "parquet_pairs":
        yield from row_group_slices(path, columns)
        return
    if params.format != "jsonl_pairs":
        own_lists.check_columns(path, own_lists.header(path, params.format), columns)
    yield from line_slices(path, params.slice_lines)


def row_group_slices(path: Path, columns: Sequence[str]) -> Iterator[Slice]:
    """Cut a Parquet file into its row groups.

    Raises:
        dataprep.sources.own_lists.ColumnError: a column is not there.
    """
    file = own_lists.open_parquet(path)
    own_lists.check_columns(path, file.schema_arrow.names, columns)
    first = 1
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        yield Slice(f"{group:06d}", {"group": group, "first_row": first}, rows)
        first += rows


def line_slices(path: Path, num_lines: int) -> list[Slice]:
    """Cut a text file into slices of whole lines."""
    return [
        Slice(f"{i:06d}", vars(piece), piece.num_lines)
        for i, piece in enumerate(line_ranges(path, num_lines))
    ]


def read_slice(params: Params, source: str, folder: Store, piece: Slice) -> Output:
    """Read the entries of one slice; ``folder`` is the stage's."""
    params = with_local_files(params, folder)
    path = Path(params.list)
    entries = _READERS[params.format](params, path, piece.payload)
    rows, rejects = index_tables(entries, source, path.name)
    if isinstance(params, Cc12mParams) and params.hashes is not None:
        files = [folder.fetch(f"{_HASHES}/{name}") for name in (KEYS_FILE, DIGESTS_FILE)]
        digests = pa.array(HashTable(*files).lookup(rows["url"].to_pylist()), pa.string())
        rows = rows.set_column(rows.column_names.index("sha256"), "sha256", digests)
    return Output(
        num_rows_in=rows.num_rows + rejects.num_rows, tables={"data": rows, "rejects": rejects}
    )


def _sbu_lines(params: Any, path: Path, payload: Mapping[str, Any]) -> Entries:
    pieces = LineRange(**payload["urls"]), LineRange(**payload["captions"])
    return sbu.read_lines_form(path, Path(params.captions), pieces)


def _own_lines(params: Any, path: Path, payload: Mapping[str, Any]) -> Entries:
    form = params.format.removesuffix("_pairs")
    columns = params.url_column, params.caption_column
    return own_lists.read_text(path, form, LineRange(**payload), *columns)


def _own_parquet(params: Any, path: Path, payload: Mapping[str, Any]) -> Entries:
    columns = params.url_column, params.caption_column
    return own_lists.read_parquet(path, payload["group"], payload["first_row"], *columns)


_READERS: Final[Mapping[str, Callable[[Any, Path, Mapping[str, Any]], Entries]]] = {
    "cc3m": lambda _, path, payload: read_cc3m(path, LineRange(**payload)),
    "cc12m": lambda _, path, payload: read_cc12m(path, LineRange(**payload)),
    "sbu": _sbu_lines,
    "sbu_json": lambda _, path, payload: sbu.read_json_form(path, **payload),
    "csv": _own_lines,
    "tsv": _own_lines,
    "jsonl_pairs": _own_lines,
    "parquet_pairs": _own_parquet,
}
