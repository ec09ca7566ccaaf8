"""The log of a run: one file that collects the messages of every library.

The file is in ``logs/`` of the workdir. For a workdir on an object store it is in a local
folder during the run and is copied to the workdir when the run ends.
"""

import hashlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from orchestration.errors import StoreError
from orchestration.masking import masked
from orchestration.storage.store import Store

LOGS: Final = "logs"
_STDERR: Final = 2


class _Masking(logging.Formatter):
    """Masks the secrets of URLs in messages and tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        return masked(super().format(record))


@contextmanager
def log_file(workdir: Store) -> Iterator[Path]:
    """Send the log of every library to a file while the block runs; yield the file's folder.

    Standard error is redirected too, as Ray's native code writes to it directly.
    """
    folder = _folder(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / time.strftime("%Y%m%d-%H%M%S.log")
    handler = logging.FileHandler(path)
    handler.setFormatter(_Masking("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(min(root.level, logging.INFO) or logging.INFO)
    sys.stderr.flush()
    terminal = os.dup(_STDERR)
    with path.open("ab") as file:
        os.dup2(file.fileno(), _STDERR)
    try:
        yield folder
    finally:
        sys.stderr.flush()
        os.dup2(terminal, _STDERR)
        os.close(terminal)
        root.removeHandler(handler)
        handler.close()
        if not workdir.is_local:
            with suppress(StoreError):  # a failed copy must not hide how the run ended
                workdir.write_file(f"{LOGS}/{path.name}", path)


def _folder(workdir: Store) -> Path:
    if workdir.is_local:
        return Path(workdir.native_path(LOGS))
    name = hashlib.sha256(workdir.uri.encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"beit3-{LOGS}" / name
