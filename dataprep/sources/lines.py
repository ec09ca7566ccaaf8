"""Text files split at line ends into ranges that can be read independently.

One pass counts the lines when the ranges are made, so that a bad line is reported by its number
however many workers read the file.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MALFORMED_LINE: Final = "malformed_line"
"Reason of a reject: the line does not have the format of its file."
_BLOCK_BYTES: Final = 1 << 24


@dataclass(frozen=True)
class LineRange:
    """Whole lines of a file."""

    offset: int
    "Byte at which the first line begins."
    num_bytes: int
    "Length of all lines, line ends included."
    first_line: int
    "Number of the first line, from 1."
    num_lines: int


def line_ranges(path: Path, num_lines: int) -> list[LineRange]:
    """Split a file into ranges of ``num_lines`` lines; the last one may be shorter."""
    starts = [(0, 1)]
    lines = offset = 0
    ended = True
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            lines_here = block.count(b"\n")
            if lines // num_lines == (lines + lines_here) // num_lines:
                lines += lines_here  # no range ends in this block, so its lines are only counted
            else:
                position = -1
                while (position := block.find(b"\n", position + 1)) >= 0:
                    lines += 1
                    if lines % num_lines == 0:
                        starts.append((offset + position + 1, lines + 1))
            offset += len(block)
            ended = block.endswith(b"\n")
    starts.append((offset, lines + 1 if ended else lines + 2))
    return [
        LineRange(start, end - start, first, following - first)
        for (start, first), (end, following) in itertools.pairwise(starts)
        if end > start
    ]


def about_lines(path: Path) -> int:
    """Estimate a file's number of lines from its size and its first block."""
    with path.open("rb") as file:
        block = file.read(_BLOCK_BYTES)
    size = path.stat().st_size
    return round(block.count(b"\n") * size / len(block)) if block else 0


def read_lines(path: Path, line_range: LineRange) -> Iterator[tuple[int, bytes]]:
    """Yield (line number, line without its end) of a range."""
    with path.open("rb") as file:
        file.seek(line_range.offset)
        data = file.read(line_range.num_bytes)
    lines = data.split(b"\n")
    if lines and not lines[-1]:
        lines.pop()
    for i, line in enumerate(lines):
        yield line_range.first_line + i, line.removesuffix(b"\r")
