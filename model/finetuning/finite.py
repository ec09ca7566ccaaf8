"""Results of a network that are no numbers, as of damaged weights, are an error."""

import numpy as np
from numpy.typing import ArrayLike


class NotFinite(ValueError):
    """Results of a network are no finite numbers; the message is one sentence."""


def require_finite(values: ArrayLike, what: str) -> None:
    """Raise :class:`NotFinite`, which says what they are, unless values are finite."""
    if not np.isfinite(values).all():
        raise NotFinite(f"{what} are not finite; check the weights and the images")
