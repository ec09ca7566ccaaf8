"""OpenWebText: a folder of ``urlsf_subset*_data.xz``, each a compressed tar of one-document files.

The published ``openwebtext.tar.xz`` holds these files; the user unpacks it once and leaves the
inner archives packed. Lock files among them are skipped.
"""

import lzma
from pathlib import Path

from dataprep.sources.documents import MAX_DOCUMENT_BYTES, BadDocument, Document, Documents
from dataprep.sources.lines import TOO_LONG
from dataprep.sources.names import safe_name
from dataprep.sources.tars import TarDamage, tar_files


def read_archive(folder: Path, name: str) -> Documents:
    """Yield the documents of one inner archive, streamed; damage ends it with a bad document."""
    stem = safe_name(Path(name).stem)
    number = 0
    try:
        with lzma.open(folder / name) as file:
            for found in tar_files(file, max_file_bytes=MAX_DOCUMENT_BYTES):
                number += 1
                name = f"{stem}/{found.name}"
                if found.num_bytes > MAX_DOCUMENT_BYTES:
                    yield BadDocument(name, found.problem or "", TOO_LONG)
                elif found.problem:
                    yield BadDocument(name, found.problem, found.reason)
                else:
                    yield Document(name, found.data.decode("utf-8", errors="replace"))
    except (lzma.LZMAError, TarDamage, EOFError, OSError) as error:
        yield BadDocument(f"{stem}/{number + 1}", f"{type(error).__name__}: {error}")
