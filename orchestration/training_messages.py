"""What a training worker says beside its metrics: tags and files of the MLflow run, warnings.

They are sent from a thread of the worker, so that no step waits for a tracking server.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from orchestration.reporting.run_log import RunLog


class Messages:
    """The messages of one worker; those of workers without a log are dropped."""

    def __init__(self, log: RunLog | None) -> None:
        self.warning = ""
        "The last warning, which the driver prints."
        self._log = log
        self._queue: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def tag(self, name: str, value: str) -> None:
        """Set a tag of the MLflow run."""
        if self._log is not None:
            self._queue.put(partial(self._log.tag, name, value))

    def warn(self, name: str, words: str) -> None:
        """Print a line on the driver's console, and set the tag ``warning/<name>``."""
        self.warning = words
        self.tag(f"warning/{name}", words)

    def artifact(self, path: Path, folder: str) -> None:
        """Copy a local file into a folder of the MLflow run's artifacts, and remove the file."""

        def send() -> None:
            assert self._log is not None
            self._log.artifact(path, folder)
            path.unlink(missing_ok=True)

        if self._log is not None:
            self._queue.put(send)

    def send(self) -> None:
        """Send what is queued; a failure is reported and ends nothing."""
        while not self._queue.empty():
            self._queue.get()()
