"""Random generators keyed by name, so that a draw depends only on its key."""

import hashlib

import numpy as np


def rng_of(*key: object) -> np.random.Generator:
    """Return the generator of a key, for example (seed, sample id, purpose)."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))
