"""A source beside the published counts: numbers for its manifest, lines in the log."""

import logging
from pathlib import Path

from dataprep.sources.published import compare, file_md5, nearest_release, published

logger = logging.getLogger(__name__)


def published_numbers(
    stage: str, form: str, *, rows: int = 0, synsets: int = 0, file: str | None = None
) -> dict[str, float]:
    """Return ``published_rows``, and whether the list is a published file; log what differs.

    Args:
        stage: its name, for the log.
        form: of the source.
        rows: of the list, where they are known.
        synsets: of an archive.
        file: path of the list; it is read again where checksums of such lists are published.
    """
    md5 = file_md5(Path(file)) if file is not None and published(form).md5 else None
    numbers: dict[str, float] = {}
    release = nearest_release(form, rows=rows, synsets=synsets)
    if release is not None:
        numbers["published_rows"] = release.rows
    if md5 is not None:
        numbers["published_checksum"] = float(md5 in published(form).md5)
    for finding in compare(form, rows=rows, synsets=synsets, md5=md5):
        level = logging.INFO if finding.agrees else logging.WARNING
        logger.log(level, "%s: %s", stage, finding.text)
    return numbers
