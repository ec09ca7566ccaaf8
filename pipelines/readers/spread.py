"""Some of many rows, spread evenly."""

import numpy as np


def spread(total: int, number: int) -> list[int]:
    """Return up to ``number`` of ``range(total)``, spread evenly from the first to the last."""
    return [int(i) for i in np.linspace(0, total - 1, min(total, number))]
