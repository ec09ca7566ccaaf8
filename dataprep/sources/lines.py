"""Text files split at line ends into ranges that can be read independently.

A file may be compressed as gzip, bzip2, xz or zstd: a process that reads a range unpacks the whole
file once into an unnamed temporary file. Text is UTF-8; a byte order mark at the start of a line is
dropped. One pass counts the lines when the ranges are made, so that a bad line is reported by its
number however many workers read the file.
"""

import itertools
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Final, NamedTuple

from dataprep.sources.compression import CompressionDamage, Unpacked, compression_of
from dataprep.text import other_encoding

MALFORMED_LINE: Final = "malformed_line"
"Reason of a reject: the line does not have the format of its file."
_BLOCK_BYTES: Final = 1 << 24
_HEAD_BYTES: Final = 1 << 16
_FIRST_BYTES: Final = 1 << 20
_OTHER_FILES: Final = {
    b"PK\x03\x04": "a zip archive",
    b"PAR1\x15": "a Parquet file",  # the byte begins its first page
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"\x04\x22\x4d\x18": "an lz4 file",
}
_ARRAY: Final = re.compile(r"\s*\[\s*(?:\{|$)")
_TAR_MAGIC: Final = slice(257, 262), b"ustar"


class ListError(ValueError):
    """A file or folder does not have the format that its source needs; the message names it."""


@dataclass(frozen=True)
class LineRange:
    """Whole lines of a file."""

    offset: int
    "Byte of the unpacked file at which the first line begins."
    num_bytes: int
    "Length of all lines, line ends included."
    first_line: int
    "Number of the first line, from 1."
    num_lines: int


class Line(NamedTuple):
    """One line without its end."""

    number: int
    "Number of the line, from 1."
    text: str
    problem: str | None = None
    "Why the line cannot be read; None for a good line."


def line_ranges(path: Path, num_lines: int) -> list[LineRange]:
    """Split a file into ranges of ``num_lines`` lines; the last one may be shorter.

    Where a compressed file is cut off, its whole lines are followed by one line that
    :func:`read_lines` yields with a problem; a file with altered bytes is only such a line.

    Raises:
        ListError: the file is not UTF-8 text.
    """
    check_text(path)
    starts = [(0, 1)]
    lines = offset = 0
    ended = True
    with _opened(path) as file:
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
    """Estimate a file's number of lines from its size and its first block.

    Raises:
        ListError: the file is not UTF-8 text.
    """
    check_text(path)
    lines = read = 0
    with Unpacked(path) as file, suppress(CompressionDamage):
        while read < _BLOCK_BYTES and (block := file.read(_BLOCK_BYTES)):
            lines += block.count(b"\n")
            read += len(block)
        read_raw = file.raw_offset()
    return round(lines * path.stat().st_size / read_raw) if lines else 0


def check_text(path: Path) -> None:
    """Check by its first bytes that a file is UTF-8 text, plain or compressed.

    Raises:
        ListError: it is not; the message names what it is.
    """
    head = b""
    with Unpacked(path) as file, suppress(CompressionDamage):  # read_lines names the damage
        head = file.read(_HEAD_BYTES)
    found = next((name for magic, name in _OTHER_FILES.items() if head.startswith(magic)), None)
    if head[_TAR_MAGIC[0]] == _TAR_MAGIC[1]:
        found = "a tar archive"
    if found:
        raise ListError(f"{path}: {found}, expected a text file; unpack it or set another format")
    if encoding := other_encoding(head):
        raise ListError(
            f"{path}: {encoding}, expected UTF-8 text; convert it, for example with "
            "`iconv -f UTF-16 -t UTF-8`"
        )
    if b"\n" not in head and head.count(b"\r") > 1:
        raise ListError(
            f"{path}: lines that end with CR alone, expected LF; convert it, for example with "
            r"`tr '\r' '\n'`"
        )


def check_json_lines(path: Path) -> None:
    """Check that a file is UTF-8 text that does not begin as one JSON array of objects does.

    Raises:
        ListError: it is not, or does.
    """
    if _ARRAY.match(first_line(path)):
        raise ListError(
            f"{path}: a JSON array, expected a JSON object per line; convert it, for example with "
            "`jq -c '.[]'`"
        )


def first_line(path: Path) -> str:
    """Return the first line of a file, with replacements for bytes that are not UTF-8.

    Raises:
        ListError: the file is not UTF-8 text.
    """
    check_text(path)
    blocks = []
    with Unpacked(path) as file, suppress(CompressionDamage):  # read_lines names the damage
        while block := file.read(_HEAD_BYTES):
            blocks.append(block)
            if b"\n" in block:
                break
    line = b"".join(blocks).partition(b"\n")[0].removesuffix(b"\r")
    return line.decode("utf-8", errors="replace").removeprefix("\ufeff")


def first_lines(path: Path) -> list[str]:
    """Return the whole lines within the first bytes of a file, as :func:`first_line` does.

    Raises:
        ListError: the file is not UTF-8 text.
    """
    check_text(path)
    blocks, missing = [], _FIRST_BYTES
    with Unpacked(path) as file, suppress(CompressionDamage):  # read_lines names the damage
        while missing > 0 and (block := file.read(missing)):
            blocks.append(block)
            missing -= len(block)
    text = b"".join(blocks).decode("utf-8", errors="replace").removeprefix("\ufeff")
    lines = text.split("\n")
    return lines if missing > 0 else lines[:-1]


def read_lines(path: Path, line_range: LineRange) -> Iterator[Line]:
    """Yield the lines of a range."""
    with _opened(path) as file:
        file.seek(line_range.offset)
        data = file.read(line_range.num_bytes)
        damage = _damage_of(path) if not file.read(1) else None
    lines = data.split(b"\n")
    if lines and not lines[-1]:
        lines.pop()
    last = line_range.first_line + len(lines) - 1
    for number, line in enumerate(lines, start=line_range.first_line):
        if damage is not None and number == last:
            yield Line(number, "", damage)
            return
        try:
            text = line.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            yield Line(number, "", f"not UTF-8 ({error.reason} at byte {error.start})")
            continue
        yield Line(number, text.removeprefix("\ufeff"))


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open the unpacked bytes of a file at their start."""
    if compression_of(path) is None:
        with path.open("rb") as plain:
            yield plain
    else:
        # A descriptor of its own: the offset is shared by all who use the temporary file.
        with os.fdopen(os.dup(_unpacked_of(path)[0].fileno()), "rb") as unpacked:
            unpacked.seek(0)
            yield unpacked


def _damage_of(path: Path) -> str | None:
    return None if compression_of(path) is None else _unpacked_of(path)[1]


def _unpacked_of(path: Path) -> tuple[IO[bytes], str | None]:
    status = path.stat()
    return _unpack(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1)
def _unpack(path: Path, _size: int, _modified_ns: int) -> tuple[IO[bytes], str | None]:
    """Return an unnamed file with the unpacked bytes, and the damage that ends them."""
    unpacked = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the cache
    with Unpacked(path) as file:
        try:
            while block := file.read(_BLOCK_BYTES):
                unpacked.write(block)
        except CompressionDamage as error:
            if not error.is_cut:
                unpacked.seek(0)
                unpacked.truncate()
            unpacked.write(b"\0")  # makes a last line, which stands for the damage
            unpacked.flush()
            return unpacked, str(error)
    unpacked.flush()
    return unpacked, None
