"""SBU Captioned Photos, in its two published formats.

``SBU_captioned_photo_dataset_urls.txt`` and ``…_captions.txt`` are two parallel text files;
``sbu-captions-all.json`` is one object with the parallel lists ``image_urls``, ``user_ids`` and
``captions``.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dataprep.sources.compression import read_unpacked
from dataprep.sources.entries import BadEntry, Entry
from dataprep.sources.lines import LineRange, ListError, line_ranges, read_lines

_MAX_JSON_BYTES: Final = 1 << 32


class SbuError(ListError):
    """Files that are not an SBU list, or do not belong together."""


def paired_ranges(urls: Path, captions: Path, num_lines: int) -> list[tuple[LineRange, LineRange]]:
    """Split both files at the same lines.

    Raises:
        ListError: a file is not UTF-8 text, or the files differ in their number of lines.
    """
    ranges = [line_ranges(path, num_lines) for path in (urls, captions)]
    counts = [sum(each.num_lines for each in pair) for pair in ranges]
    if counts[0] != counts[1]:
        raise SbuError(
            f"{urls} has {counts[0]} lines and {captions} has {counts[1]}: they do not belong "
            "together, or one is truncated"
        )
    return list(zip(*ranges, strict=True))


def read_lines_form(
    urls: Path, captions: Path, ranges: tuple[LineRange, LineRange]
) -> Iterator[Entry | BadEntry]:
    """Yield the entries of a pair of ranges."""
    lines = zip(read_lines(urls, ranges[0]), read_lines(captions, ranges[1]), strict=True)
    for url, caption in lines:
        if problem := url.problem or caption.problem:
            yield BadEntry(url.number, problem)
        else:
            yield Entry(url.number, url.text, (caption.text,))


def json_lists(path: Path) -> tuple[list[object], list[object]]:
    """Return the URLs and the captions of the JSON format.

    Raises:
        SbuError: the file has another format, or lists of different lengths.
    """
    try:
        lists = json.loads(read_unpacked(path, _MAX_JSON_BYTES))
        urls, captions = lists["image_urls"], lists["captions"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SbuError(
            f"{path}: not an object with image_urls and captions ({type(error).__name__}: {error})"
        ) from None
    if not isinstance(urls, list) or not isinstance(captions, list) or len(urls) != len(captions):
        raise SbuError(f"{path}: image_urls and captions are not lists of equal length")
    return urls, captions


def read_json_form(path: Path, start: int, stop: int) -> Iterator[Entry | BadEntry]:
    """Yield entries ``start`` up to ``stop``, numbered from 1."""
    urls, captions = json_lists(path)
    for number in range(start, min(stop, len(urls))):
        url, caption = urls[number], captions[number]
        if isinstance(url, str) and isinstance(caption, str):
            yield Entry(number + 1, url, (caption,))
        else:
            yield BadEntry(number + 1, f"url {url!r}, caption {caption!r}")
