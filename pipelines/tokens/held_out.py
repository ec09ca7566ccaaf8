"""Held-out rows: a share of each token dataset that training never sees.

Whether a row is held out depends on its id alone, so the split survives every other change.
"""

import hashlib


def is_held_out(sample_id: str, share: float) -> bool:
    """Whether the row belongs to the held-out ``share``."""
    digest = hashlib.sha256(f"held_out/{sample_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
