"""The log of a run: one file for every library, beside the workdir's data.

A workdir on an object store keeps its logs in a local folder while the run lasts, and gets them
when it ends.
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
from orchestration.storage.store import Store

LOGS: Final = "logs"
_STDERR: Final = 2


@contextmanager
def log_file(workdir: Store) -> Iterator[Path]:
    """Send every library's log to a file while the block runs; give its folder.

    Ray's native code writes straight to the standard error of the process, so that goes there too.
    """
    folder = _folder(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / time.strftime("%Y%m%d-%H%M%S.log")
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
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
            with suppress(StoreError):  # the run's own end is what matters
                workdir.write_file(f"{LOGS}/{path.name}", path)


def _folder(workdir: Store) -> Path:
    if workdir.is_local:
        return Path(workdir.native_path(LOGS))
    name = hashlib.sha256(workdir.uri.encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"beit3-{LOGS}" / name
