"""Random numbers by name: what is drawn for a sample depends on the sample alone."""

import hashlib

import numpy as np


def rng_of(*key: object) -> np.random.Generator:
    """Return the generator of a key, such as a seed, the name of a sample and a purpose."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))
