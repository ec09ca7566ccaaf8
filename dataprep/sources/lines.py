"""Text files split at line ends into ranges that can be read independently.

A file may be compressed as gzip, bzip2, xz or zstd: a process that reads a range unpacks the file
once (``unpacked_files``); one that reads all lines does so in a stream. Text is UTF-8; a byte order
mark at the start of a line is dropped. One pass counts the lines when the ranges are made, so that
a bad line is reported by its number however many workers read the file.
"""

import itertools
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, NamedTuple

from dataprep.sources.compression import CompressionDamage, Unpacked
from dataprep.sources.unpacked_files import DAMAGED_LINE, damage_of, opened
from dataprep.text import other_encoding

MALFORMED_LINE: Final = "malformed_line"
"Reason of a reject: the line does not have the format of its file."
TOO_LONG: Final = "too_long"
"Reason of a reject: the line or document exceeds ``MAX_LINE_BYTES``."
MAX_LINE_BYTES: Final = 1 << 26
"""Longest line and document. Cleaning a text takes up to 25 times its bytes in memory, if one
character of it is beyond the basic plane, and a worker has a few gigabytes."""
_BLOCK_BYTES: Final = 1 << 24
_READ_BYTES: Final = 1 << 20
_HEAD_BYTES: Final = 1 << 16
_FIRST_BYTES: Final = 1 << 20
_OTHER_FILES: Final = {
    b"PK\x03\x04": "a zip archive",
    b"PAR1\x15": "a Parquet file",  # the byte begins its first page
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"\x04\x22\x4d\x18": "an lz4 file",
    b"\x1f\x9d": "a file of compress(1)",
    b"\x5d\0\0": "an lzma file",
    b"\xff\x06\0\0sNaPpY": "a snappy file",
    b"Rar!\x1a\x07": "a rar archive",
    b"%PDF-": "a PDF file",
    b"version https://git-lfs": "a pointer of Git LFS without the file itself",
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
    reason: str = MALFORMED_LINE
    "Reason of the reject, if there is a problem."


def line_ranges(path: Path, num_lines: int, num_bytes: int | None = None) -> list[LineRange]:
    """Split a file into ranges of ``num_lines`` lines; the last one may be shorter.

    Where a compressed file is cut off, its whole lines are followed by one line that
    :func:`read_lines` yields with a problem; a file with altered bytes is only such a line.

    Args:
        path: the file.
        num_lines: largest number of lines of a range.
        num_bytes: largest size of a range, line ends included; a longer line is a range of its own.

    Raises:
        ListError: the file is not UTF-8 text.
    """
    check_text(path)
    largest = num_bytes or sys.maxsize
    starts = [(0, 1)]
    lines = offset = end = 0  # `end` is where the last whole line ends
    with opened(path) as file:
        while block := file.read(_BLOCK_BYTES):
            start, first = starts[-1]
            lines_here = block.count(b"\n")
            if lines + lines_here < first - 1 + num_lines and (
                offset + len(block) - start <= largest
            ):  # no range ends in this block, so its lines are only counted
                lines += lines_here
                end = offset + block.rfind(b"\n") + 1 if lines_here else end
            else:
                position = -1
                while (position := block.find(b"\n", position + 1)) >= 0:
                    if offset + position + 1 - starts[-1][0] > largest and end > starts[-1][0]:
                        starts.append((end, lines + 1))
                    lines += 1
                    end = offset + position + 1
                    if lines - starts[-1][1] + 1 == num_lines:
                        starts.append((end, lines + 1))
            offset += len(block)
    if offset > end:  # a last line without an end
        if offset - starts[-1][0] > largest and end > starts[-1][0]:
            starts.append((end, lines + 1))
        lines += 1
    starts.append((offset, lines + 1))
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
    with Unpacked(path) as file:
        with suppress(CompressionDamage):
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


def read_lines(path: Path, line_range: LineRange | None = None) -> Iterator[Line]:
    """Yield the lines of a range, or of the whole file, which is then unpacked as it is read."""
    if line_range is None:
        yield from _all_lines(path)
        return
    last = line_range.first_line + line_range.num_lines - 1
    with opened(path) as file:
        ends_file = line_range.offset + line_range.num_bytes >= os.fstat(file.fileno()).st_size
        damage = damage_of(path) if ends_file else None
        lines = _split(_blocks(file, line_range))
        for number, line in enumerate(lines, start=line_range.first_line):
            if damage is not None and number == last:
                yield Line(number, "", damage)
                return
            yield _line(number, line)


def _all_lines(path: Path) -> Iterator[Line]:
    """Yield the lines of a file that is read twice: first only to find damage."""
    damage: CompressionDamage | None = None
    with Unpacked(path) as file:
        try:
            while file.read(_READ_BYTES):
                pass
        except CompressionDamage as error:
            damage = error
    if damage is not None and not damage.is_cut:
        yield Line(1, "", str(damage))
        return
    held: Line | None = None
    with Unpacked(path) as file:
        for number, line in enumerate(_split(_until_damage(file)), start=1):
            if held is not None:
                yield held
            held = _line(number, line)
    if held is not None:
        yield held if damage is None else Line(held.number, "", str(damage))


def _until_damage(file: Unpacked) -> Iterator[bytes]:
    try:
        while block := file.read(_READ_BYTES):
            yield block
    except CompressionDamage:
        yield DAMAGED_LINE


def _blocks(file: IO[bytes], line_range: LineRange) -> Iterator[bytes]:
    """Yield the bytes of a range; others may read the same file meanwhile."""
    offset, end = line_range.offset, line_range.offset + line_range.num_bytes
    while block := os.pread(file.fileno(), min(end - offset, _READ_BYTES), offset):
        yield block
        offset += len(block)


def _split(blocks: Iterable[bytes]) -> Iterator[bytes | None]:
    """Yield the lines in some blocks, without their ends; None for one that is too long."""
    pieces: list[bytes] = []  # of the line that the last block ends in
    size = 0
    for block in blocks:
        first, *others = block.split(b"\n")
        size += len(first)
        # Of a line that is too long, only its length is kept.
        pieces = [*pieces, first] if size <= MAX_LINE_BYTES else []
        if others:
            yield b"".join(pieces) if size <= MAX_LINE_BYTES else None
            *whole, last = others
            for line in whole:
                yield line if len(line) <= MAX_LINE_BYTES else None
            size = len(last)
            pieces = [last] if size <= MAX_LINE_BYTES else []
    if size:
        yield b"".join(pieces) if size <= MAX_LINE_BYTES else None


def _line(number: int, line: bytes | None) -> Line:
    if line is None:
        return Line(number, "", f"longer than {MAX_LINE_BYTES} bytes", TOO_LONG)
    try:
        text = line.removesuffix(b"\r").decode("utf-8")
    except UnicodeDecodeError as error:
        return Line(number, "", f"not UTF-8 ({error.reason} at byte {error.start})")
    return Line(number, text.removeprefix("\ufeff"))
