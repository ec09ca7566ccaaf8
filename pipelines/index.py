"""Index: list files → one row per usable line.

Out: ``data`` (sample_id, source, url, captions) and ``rejects``.
Drops: ``malformed_line``, ``empty_caption``, ``bad_url``.
Nothing is fetched here, and nothing is looked up.
"""

from functools import partial
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from dataprep.sources.lines import LineRange, about_lines, line_ranges
from dataprep.sources.pair_lists import read_cc3m, read_cc12m
from orchestration import Context, Output, Slice
from orchestration.params import EXTERNAL_FILE, StageParams
from orchestration.usage import Expected

READERS: Final = {"cc3m": read_cc3m, "cc12m": read_cc12m}


class Params(StageParams):
    """A list of captions and URLs."""

    format: Literal["cc3m", "cc12m"]
    "Which columns a line has."
    list: Annotated[str, EXTERNAL_FILE]
    "Path of the list file."
    slice_lines: int = Field(default=50_000, ge=1)
    "Lines of a slice."


def run(context: Context, params: Params, source: str) -> None:
    """Read the list, a slice of lines at a time."""
    slices = line_slices(Path(params.list), params.slice_lines)
    context.map_slices(slices, partial(read_slice, params, source))
    context.commit(slices)


def expects(params: Params) -> Expected:
    """Say what is known beforehand: about one row a line."""
    return Expected(rows=about_lines(Path(params.list)))


def line_slices(path: Path, num_lines: int) -> list[Slice]:
    """Cut a text file into slices of whole lines."""
    return [
        Slice(f"{i:06d}", vars(piece), piece.num_lines)
        for i, piece in enumerate(line_ranges(path, num_lines))
    ]


def read_slice(params: Params, source: str, piece: Slice) -> Output:
    """Read the lines of one slice."""
    rows, rejects = READERS[params.format](Path(params.list), LineRange(**piece.payload), source)
    return Output(
        num_rows_in=rows.num_rows + rejects.num_rows, tables={"data": rows, "rejects": rejects}
    )
