"""Loss spikes: a step whose loss is far above those of the steps before it."""

from collections import deque
from collections.abc import Mapping
from statistics import median
from typing import Any


class Spikes:
    """Compares the loss of each objective with its median over the last accepted steps.

    An objective is compared once it has a loss of ``window`` accepted steps. A step that spikes is
    not accepted, so a loss that stays high is refused until the training ends by its limit of
    skipped steps.

    Attributes:
        num_found: number of steps that spiked.
    """

    def __init__(self, factor: float, window: int) -> None:
        """Begin without losses.

        Args:
            factor: a loss above ``factor`` times the median is a spike.
            window: number of accepted steps.
        """
        self.factor, self.window = factor, window
        self.num_found = 0
        self._losses: dict[str, deque[float]] = {}

    def judge(self, losses: Mapping[str, float]) -> bool:
        """Return whether a step with these finite losses spikes; otherwise accept it."""
        if any(self._is_high(name, loss) for name, loss in losses.items()):
            self.num_found += 1
            return True
        for name, loss in losses.items():
            self._losses.setdefault(name, deque(maxlen=self.window)).append(loss)
        return False

    def _is_high(self, name: str, loss: float) -> bool:
        before = self._losses.get(name, ())
        return len(before) == self.window and loss > self.factor * median(before)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold; JSON keeps it exactly."""
        losses = {name: list(values) for name, values in self._losses.items()}
        return {"num_found": self.num_found, "losses": losses}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.num_found = state["num_found"]
        self._losses = {
            name: deque(values, maxlen=self.window) for name, values in state["losses"].items()
        }
