"""What a stage took, over all its attempts: ``usage.json`` in its folder.

No part of the output, so it may differ between runs that give the same bytes. Plans read it to say
what the next run will take.
"""

import resource
import sys
import time
from dataclasses import dataclass, replace
from typing import Final

from pydantic import TypeAdapter

from orchestration.storage.store import Store

USAGE: Final = "usage.json"
_MAXRSS_UNIT: Final = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Usage:
    """What one or several attempts at a stage took."""

    seconds: float = 0.0
    memory: int = 0
    "Bytes of the largest worker."
    work: int | None = None
    "Rows that the recipe gave it to do, where the recipe says."
    ended_at: float = 0.0

    def and_also(self, other: "Usage") -> "Usage":
        """Return the usage of these attempts and of one that came later."""
        return replace(
            other,
            seconds=round(self.seconds + other.seconds, 3),
            memory=max(self.memory, other.memory),
        )


@dataclass(frozen=True)
class Expected:
    """What a recipe alone says of a stage's output; None where it says nothing."""

    rows: int | None = None
    "Of all tables but the rejects; for training, samples."
    bytes: int | None = None
    memory: int | None = None
    "Bytes of a worker."


_ADAPTER: Final = TypeAdapter(Usage)


def read_usage(folder: Store) -> Usage:
    """Return what a stage took, over its finished and failed attempts."""
    return _ADAPTER.validate_json(folder.read(USAGE)) if folder.exists(USAGE) else Usage()


def add_usage(folder: Store, attempt: Usage) -> Usage:
    """Add one attempt to what a stage took; return the sum."""
    total = read_usage(folder).and_also(replace(attempt, ended_at=time.time()))
    folder.write_bytes(USAGE, _ADAPTER.dump_json(total))
    return total


def peak_memory() -> int:
    """Return the most bytes that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT
