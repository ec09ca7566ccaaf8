"""Local images of own lists: the rows of an index that name a file are read rather than fetched.

A file that cannot be read is a reject with a reason of ``dataprep.sources.members``. The files are
not part of a fingerprint: after changing some, delete the folder of the download stage.
"""

from collections.abc import Sequence
from pathlib import Path

from dataprep.fetch import FetchError
from dataprep.images import ImageError, ImageRules, store_image
from dataprep.sources.entries import local_path
from dataprep.sources.folders import read_file
from dataprep.sources.members import MemberError
from dataprep.sources.names import safe_name
from pipelines.ingest.fetch_engines import Engine, Outcome


class LocalImagesEngine:
    """Reads local files itself and leaves every other URL to an engine that fetches."""

    def __init__(self, engine: Engine, images: ImageRules, folder: Path) -> None:
        """Wrap an engine.

        Args:
            engine: fetches URLs.
            images: how images are resized and encoded.
            folder: folder at which relative paths begin.
        """
        self._engine, self._images, self._folder = engine, images, folder

    def __call__(self, urls: Sequence[str]) -> list[Outcome]:
        """See :class:`Engine`."""
        paths = [local_path(url, self._folder) for url in urls]
        remote = [url for url, path in zip(urls, paths, strict=True) if path is None]
        fetched = iter(self._engine(remote) if remote else [])
        return [next(fetched) if path is None else self._read(path) for path in paths]

    def _read(self, path: Path) -> Outcome:
        try:
            return store_image(read_file(path, safe_name(str(path))), self._images)
        except (MemberError, ImageError) as error:
            return FetchError(error.reason, error.detail)


def refuse_urls(urls: Sequence[str]) -> list[Outcome]:
    """Reject every URL: the engine of a recipe without ``download.contact``."""
    detail = "set download.contact to an e-mail address or URL of yours, then --retry no_contact"
    return [FetchError("no_contact", detail) for _ in urls]
