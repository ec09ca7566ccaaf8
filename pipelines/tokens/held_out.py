"""The split of a token dataset into rows to train on and held-out rows for evaluation.

The split is a function of a row's id alone: it does not change when rows are added, removed or
reordered, or when any other parameter changes.
"""

import hashlib


def is_held_out(sample_id: str, fraction: float) -> bool:
    """Return whether a row is held out, for an expected ``fraction`` of all rows."""
    digest = hashlib.sha256(f"held_out/{sample_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64
