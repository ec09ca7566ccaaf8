"""A training session of one worker, without Ray."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from orchestration.branches import data_step, read_branches
from orchestration.checkpoint_files import RAY_TRAIN, checkpoint_name, newest_whole, write_list
from orchestration.checkpoint_writer import Copy
from orchestration.session import Wish
from orchestration.storage.store import Store
from orchestration.training_messages import Messages


class OneWorker:
    """A session in the folder of a stage; it can be interrupted, or asked to save or to stop."""

    rank, num_workers, num_threads, device = 0, 1, 2, torch.device("cpu")

    def __init__(
        self,
        folder: Path,
        stop_after: int | None = None,
        must_stop_after: int | None = None,
        save_after: Collection[int] = (),
    ) -> None:
        self.branches = read_branches(Store(folder))
        self.folder, self.stop_after = Store(folder), stop_after
        self.save_after = save_after
        self.must_stop_after = must_stop_after
        self.metrics: dict[int, Mapping[str, float]] = {}
        self.rows: list[Mapping[str, float]] = []
        self.messages = Messages(None)

    def has_checkpoint(self) -> bool:
        return newest_whole(self.folder) is not None

    @contextmanager
    def starting_checkpoint(self) -> Iterator[Path | None]:
        found = newest_whole(self.folder)
        yield None if found is None else Path(found.uri)

    def save(self, step: int, copy: Copy, *, now: bool = False, is_last: bool = False) -> None:
        checkpoint = Path(self.folder.uri) / RAY_TRAIN / checkpoint_name(step, len(self.branches))
        checkpoint.mkdir(parents=True, exist_ok=True)
        copy(checkpoint, None)()
        write_list(checkpoint, self.rank, self.num_workers)
        if step == self.stop_after:
            raise KeyboardInterrupt

    def data_step(self, step: int) -> int:
        return data_step(self.branches, step)

    def wish(self) -> Wish:
        if self.must_stop_after in self.metrics:
            return Wish.STOP
        return Wish.SAVE if max(self.metrics) in self.save_after else Wish.NOTHING

    def show(self, done: int, total: int, metrics: Mapping[str, float], rates: str = "") -> None:
        self.metrics[done] = metrics

    def log(self, row: Mapping[str, float]) -> None:
        self.rows.append(row)


def last_checkpoint(folder: Path) -> Store:
    """Return the newest checkpoint of a session."""
    found = newest_whole(Store(folder))
    assert found is not None
    return found
