"""How long a stage took, over all its attempts: ``timing.json`` in its folder."""

import json

from orchestration.store import Store

TIMING = "timing.json"


def add_seconds(folder: Store, seconds: float) -> float:
    """Add the seconds of one attempt at a stage; return the sum over attempts."""
    total = stage_seconds(folder) + seconds
    folder.write_bytes(TIMING, json.dumps({"seconds": round(total, 3)}).encode())
    return total


def stage_seconds(folder: Store) -> float:
    """Return the seconds that a stage took, over its finished and failed attempts."""
    return float(json.loads(folder.read(TIMING))["seconds"]) if folder.exists(TIMING) else 0.0
