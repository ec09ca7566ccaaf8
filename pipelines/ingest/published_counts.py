"""Compares a source with its published counts: numbers for the manifest, and lines in the log."""

import logging
from pathlib import Path

from dataprep.sources.published import compare, file_md5, nearest_release, published

logger = logging.getLogger(__name__)


def published_numbers(
    stage: str, format_: str, *, rows: int = 0, synsets: int = 0, file: str | None = None
) -> dict[str, float]:
    """Return ``published_rows`` and ``published_checksum`` (1 or 0); log what differs.

    Args:
        stage: name of the stage, for the log.
        format_: of the source.
        rows: number of rows of the list; 0 if unknown.
        synsets: number of synsets of the archive; 0 for other sources.
        file: path of the list; it is hashed only if checksums of this format are published.
    """
    md5 = file_md5(Path(file)) if file is not None and published(format_).md5 else None
    numbers: dict[str, float] = {}
    release = nearest_release(format_, rows=rows, synsets=synsets)
    if release is not None:
        numbers["published_rows"] = release.rows
    if md5 is not None:
        numbers["published_checksum"] = float(md5 in published(format_).md5)
    for finding in compare(format_, rows=rows, synsets=synsets, md5=md5):
        level = logging.INFO if finding.agrees else logging.WARNING
        logger.log(level, "%s: %s", stage, finding.text)
    return numbers
