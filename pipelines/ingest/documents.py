"""Documents: text corpora → one cleaned document per row.

Out: ``data`` (doc_id, source, text) and ``rejects``. Drops: ``malformed_line``, ``too_short``,
``other_language``.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from dataprep.sources import cc_news, documents, openwebtext, own_lists, wikipedia
from dataprep.sources.folders import files_in
from dataprep.sources.lines import LineRange, about_lines
from orchestration import Context, Output, Slice
from orchestration.errors import RecipeError
from orchestration.params import EXTERNAL_FILE, StageParams
from orchestration.reporting.usage import Expected
from orchestration.slices import name_slices
from pipelines.ingest.index import line_slices, parquet_rows, row_group_slices


class CorpusParams(StageParams):
    """A corpus of documents."""

    file: Annotated[str, EXTERNAL_FILE]
    "Path of the file, or of the folder of an OpenWebText, of CC-News or of text files."
    min_chars: int = Field(default=20, ge=1)
    "Shorter documents are rejects."


class TextParams(CorpusParams):
    """Plain text: a file with a document a line, or a folder with a document a file."""

    format: Literal["txt"]
    slice_lines: int = Field(default=20_000, ge=1)
    "Lines of a slice."
    slice_files: int = Field(default=256, ge=1)
    "Files of a slice."


class JsonLinesParams(CorpusParams):
    """JSON lines: a document a line."""

    format: Literal["jsonl"]
    field: str = "text"
    "Of the text."
    slice_lines: int = Field(default=20_000, ge=1)
    "Lines of a slice."


class ParquetParams(CorpusParams):
    """Parquet: a document a row; a row group is a slice."""

    format: Literal["parquet"]
    column: str = "text"
    "Of the text."


class OpenWebTextParams(CorpusParams):
    """OpenWebText: the folder of its inner archives, each a slice."""

    format: Literal["openwebtext"]


class CcNewsParams(CorpusParams):
    """CC-News: the folder of its WARC files, each a slice."""

    format: Literal["cc_news"]
    language: str = Field(default="en", pattern=r"^[a-z]{2}$")
    "Of the pages to keep, as ISO 639-1; the others are rejects."


class WikipediaParams(CorpusParams):
    """A Wikipedia dump, multistream."""

    format: Literal["wikipedia"]
    index: Annotated[str, EXTERNAL_FILE]
    "Path of the dump's multistream index."
    slice_streams: int = Field(default=20, ge=1)
    "Streams of a slice, a hundred pages each."


Params = (
    TextParams
    | JsonLinesParams
    | ParquetParams
    | OpenWebTextParams
    | CcNewsParams
    | WikipediaParams
)


def run(context: Context, params: Params, source: str) -> None:
    """Read the corpus, a slice at a time."""
    try:
        slices = list(make_slices(params))
    except (own_lists.ColumnError, wikipedia.DumpError) as error:
        raise RecipeError(str(error)) from None
    context.map_slices(slices, partial(document_slice, params, source))
    context.commit(slices)


def expects(params: Params) -> Expected:
    """Say what is known beforehand: about one document a line."""
    path = Path(params.file)
    if isinstance(params, TextParams | JsonLinesParams) and path.is_file():
        return Expected(rows=about_lines(path))
    if isinstance(params, ParquetParams):
        return Expected(rows=parquet_rows(path))
    return Expected()


def make_slices(params: Params) -> Iterator[Slice]:
    """Cut a corpus into slices."""
    path = Path(params.file)
    if isinstance(params, ParquetParams):
        yield from row_group_slices(path, [params.column])
    elif isinstance(params, OpenWebTextParams | CcNewsParams):
        pattern = cc_news.PATTERN if isinstance(params, CcNewsParams) else "*.xz"
        for i, name in enumerate(files_in(path, pattern)):
            yield Slice(f"{i:06d}", {"name": name})
    elif isinstance(params, WikipediaParams):
        index = Path(params.index)
        for i, piece in enumerate(wikipedia.stream_ranges(path, index, params.slice_streams)):
            yield Slice(f"{i:06d}", vars(piece))
    elif isinstance(params, TextParams) and path.is_dir():
        yield from name_slices(files_in(path, "*.txt"), params.slice_files)
    else:
        yield from line_slices(path, params.slice_lines)


def document_slice(params: Params, source: str, piece: Slice) -> Output:
    """Read the documents of one slice."""
    path = Path(params.file)
    found = _READERS[params.format](params, path, piece.payload)
    rows, rejects = documents.document_tables(found, source, path.name, params.min_chars)
    return Output(
        num_rows_in=rows.num_rows + rejects.num_rows, tables={"data": rows, "rejects": rejects}
    )


def _text(_: Any, path: Path, payload: Mapping[str, Any]) -> documents.Documents:
    if "names" in payload:
        return documents.read_text_files(path, payload["names"])
    return documents.read_text_lines(path, LineRange(**payload))


_READERS: Final[Mapping[str, Callable[[Any, Path, Mapping[str, Any]], documents.Documents]]] = {
    "txt": _text,
    "jsonl": lambda p, path, payload: documents.read_jsonl(path, LineRange(**payload), p.field),
    "parquet": lambda p, path, payload: documents.read_parquet(path, **payload, column=p.column),
    "openwebtext": lambda _, path, payload: openwebtext.read_archive(path, **payload),
    "cc_news": lambda p, path, payload: cc_news.read_warc(path, **payload, language=p.language),
    "wikipedia": lambda _, path, payload: wikipedia.read_streams(
        path, wikipedia.StreamRange(**payload)
    ),
}
