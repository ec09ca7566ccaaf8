"""Conceptual 12M: ``cc12m.tsv``, and the hash list of its images.

The hash list is large, so the index stage turns it into a sorted table once (``hashes/`` in its
folder), which every slice searches.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal

import pyarrow as pa

from dataprep.sources.conceptual import read_cc12m
from dataprep.sources.hash_list import DIGESTS_FILE, KEYS_FILE, HashTable, make_table
from dataprep.sources.lines import LineRange, check_text
from orchestration import Context, Slice
from orchestration.params import EXTERNAL_FILE, OR_URI, is_uri
from orchestration.storage.store import Store
from pipelines.ingest.file_slices import text_patterns
from pipelines.ingest.index import Entries
from pipelines.ingest.line_lists import LineList

_FOLDER: Final = "hashes"
_COUNTS: Final = f"{_FOLDER}/counts.json"
"Written last: where it exists, the table is complete."


class Cc12m(LineList):
    """Conceptual 12M."""

    license: ClassVar = (
        "free for any purpose, with credit to Google; each image under its owner's terms"
    )
    patterns: ClassVar = text_patterns(".tsv")

    format: Literal["cc12m"]
    "A TSV file with a URL and a caption per line."
    hashes: Annotated[str | None, EXTERNAL_FILE, OR_URI] = None
    "Path or URI of its hash list; each image is then compared with its SHA-256 in the list."

    def check(self, path: Path) -> None:
        """See :class:`LineList`."""
        if self.hashes is not None and not is_uri(self.hashes):
            check_text(Path(self.hashes))

    def read_lines(self, path: Path, lines: LineRange) -> Entries:
        """See :class:`LineList`."""
        return read_cc12m(path, lines)

    def prepare(self, context: Context) -> dict[str, float]:
        """Make the table of expected digests, if there is a hash list."""
        if self.hashes is None:
            return {}
        if not context.folder.exists(_COUNTS):
            context.run_task(write_hash_table, Path(self.hashes), context.folder)
        counts: dict[str, float] = json.loads(context.folder.read(_COUNTS))
        return counts

    def read(
        self, slice_: Slice, name: str, folder: Store, *, local_images: bool = False
    ) -> Iterator[tuple[pa.Table, pa.Table]]:
        """See :class:`PairList`; fills the column ``sha256`` from the hash list."""
        for rows, rejects in super().read(slice_, name, folder, local_images=local_images):
            if self.hashes is None:
                yield rows, rejects
                continue
            files = [folder.fetch(f"{_FOLDER}/{file}") for file in (KEYS_FILE, DIGESTS_FILE)]
            digests = pa.array(HashTable(*files).lookup(rows["url"].to_pylist()), pa.string())
            column = rows.column_names.index("sha256")
            yield rows.set_column(column, "sha256", digests), rejects


def write_hash_table(path: Path, folder: Store) -> None:
    """Write the sorted table of the hash list at ``path``, and its line counts, into a folder."""
    with tempfile.TemporaryDirectory() as temporary:
        good, bad = make_table(path, Path(temporary))
        for file in (KEYS_FILE, DIGESTS_FILE):
            folder.write_file(f"{_FOLDER}/{file}", Path(temporary) / file)
    counts = {"hash_lines": good, "bad_hash_lines": bad}
    folder.write_bytes(_COUNTS, json.dumps(counts).encode())
