"""Documents: own text → one cleaned document per row.

Out: ``data`` (doc_id, source, text) and ``rejects``. Drops: ``malformed_line``, ``too_short``.
"""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from dataprep.sources.documents import read_documents
from dataprep.sources.lines import LineRange, about_lines
from orchestration import Context, Output, Slice
from orchestration.params import EXTERNAL_FILE, StageParams
from orchestration.usage import Expected
from pipelines.index import line_slices


class Params(StageParams):
    """A corpus of documents."""

    format: Literal["jsonl"]
    "One object a line, its text under ``text``."
    file: Annotated[str, EXTERNAL_FILE]
    "Path of the file."
    min_chars: int = Field(default=20, ge=1)
    "Shorter documents are rejects."
    slice_lines: int = Field(default=20_000, ge=1)
    "Lines of a slice."


def run(context: Context, params: Params, source: str) -> None:
    """Read the corpus, a slice of lines at a time."""
    slices = line_slices(Path(params.file), params.slice_lines)
    context.map_slices(slices, partial(document_slice, params, source))
    context.commit(slices)


def expects(params: Params) -> Expected:
    """Say what is known beforehand: about one document a line."""
    return Expected(rows=about_lines(Path(params.file)))


def document_slice(params: Params, source: str, piece: Slice) -> Output:
    """Read the documents of one slice."""
    rows, rejects = read_documents(
        Path(params.file), LineRange(**piece.payload), source, params.min_chars
    )
    return Output(
        num_rows_in=rows.num_rows + rejects.num_rows, tables={"data": rows, "rejects": rejects}
    )
