"""A training session of one worker, without Ray."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch


class OneWorker:
    """A session whose newest checkpoint is a folder; it can be interrupted, or asked to stop."""

    rank, num_workers, num_threads, device = 0, 1, 2, torch.device("cpu")

    def __init__(
        self, folder: Path, stop_after: int | None = None, must_stop_after: int | None = None
    ) -> None:
        self.folder, self.stop_after = folder, stop_after
        self.must_stop_after = must_stop_after
        self.metrics: dict[int, Mapping[str, float]] = {}

    @contextmanager
    def latest_checkpoint(self) -> Iterator[Path | None]:
        yield self.folder if self.folder.exists() else None

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        self.folder.mkdir(exist_ok=True)
        write(self.folder)
        if step == self.stop_after:
            raise KeyboardInterrupt

    def must_stop(self) -> bool:
        return self.must_stop_after is not None and self.must_stop_after in self.metrics

    def show(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        self.metrics[done] = metrics
