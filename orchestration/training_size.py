"""The number of workers of a training, which changes while it runs if the recipe gives a range.

Ray Train looks after machines that come and go: it restarts a training with fewer workers when some
are lost, and with more when the cluster has room for them. In the second case it stops healthy
workers, so they are asked for a checkpoint first.

Ray Train is imported inside functions, as it imports slowly and a plan never needs it.
"""

import logging
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

from orchestration.errors import StoreError
from orchestration.session import SAVE
from orchestration.storage.store import Store

logger = logging.getLogger(__name__)

_PATIENCE_S: Final = 600.0
"How long healthy workers may take for a checkpoint before they are stopped."
_LOOK_EVERY_S: Final = 0.5


def saving_before_resizing(folder: Store, newest_step: Callable[[], int]) -> Any:
    """Return a callback of Ray Train that has a checkpoint saved before the workers change.

    Args:
        folder: folder of the stage.
        newest_step: returns the step of the newest whole checkpoint, 0 if there is none.
    """
    # Ray Train calls user callbacks after reports and failures alone.
    from ray.train.v2._internal.execution.callback import ControllerCallback
    from ray.train.v2._internal.execution.controller.state import ResizingState

    class SavingBeforeResizing(ControllerCallback):
        def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
            if isinstance(current_state, ResizingState):
                try:
                    saved_now(folder, newest_step)
                except StoreError as error:
                    logger.warning("no checkpoint before the workers change: %s", error)

    return SavingBeforeResizing()


def saved_now(folder: Store, newest_step: Callable[[], int]) -> None:
    """Ask the running training for a checkpoint and wait until it is whole, but not for ever.

    Raises:
        StoreError: the store cannot be reached.
    """
    before, deadline = newest_step(), time.monotonic() + _PATIENCE_S
    folder.write_bytes(SAVE, uuid.uuid4().hex.encode())
    while newest_step() <= before and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY_S)
    folder.remove(SAVE)
