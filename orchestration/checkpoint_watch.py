"""Work on the checkpoints of a training while it goes on, in a thread of the driver.

The training never waits for it. The thread looks into the stage's folder, as the workers' reports
arrive elsewhere.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from orchestration.checkpoint_files import checkpoints, damage_of, step_of
from orchestration.errors import StoreError
from orchestration.storage.store import Store

logger = logging.getLogger(__name__)

OnCheckpoint = Callable[[Store, threading.Event], None]
"""Called with a new whole checkpoint, and an event that is set when the training has ended, after
which it must return soon. An old checkpoint may be removed meanwhile."""

_LOOK_EVERY_S: Final = 5.0


@contextmanager
def watching_checkpoints(
    folder: Store, after: Store | None, on_checkpoint: OnCheckpoint | None
) -> Iterator[None]:
    """Call ``on_checkpoint`` for each new checkpoint, in order of steps, while the block runs.

    Args:
        folder: folder of the stage.
        after: checkpoint from which the training continues, which is not new.
        on_checkpoint: what to do; None does nothing.
    """
    if on_checkpoint is None:
        yield
        return
    ended = threading.Event()

    def watch() -> None:
        seen = step_of(after) if after is not None else 0
        while not ended.wait(_LOOK_EVERY_S):
            try:
                for checkpoint in _whole_after(folder, seen):
                    if ended.is_set():
                        return
                    seen = step_of(checkpoint)
                    on_checkpoint(checkpoint, ended)
            except StoreError as error:
                logger.warning("checkpoints could not be listed: %s", error)

    thread = threading.Thread(target=watch, name=f"checkpoints of {folder.name}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _whole_after(folder: Store, step: int) -> list[Store]:
    """Return the whole checkpoints after a step, in order of steps."""
    new = [c for c in checkpoints(folder) if step_of(c) > step]
    return [c for c in sorted(new, key=step_of) if damage_of(c, read=False) is None]
