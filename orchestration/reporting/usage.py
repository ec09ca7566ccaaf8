"""Duration and memory of a stage, summed over its attempts, in ``usage.json`` of its folder.

The file is no part of the output, so it may differ between runs that give the same bytes. Plans
read it to estimate the next run.
"""

import logging
import resource
import sys
import time
from dataclasses import dataclass, replace
from typing import Final

from pydantic import TypeAdapter, ValidationError

from orchestration.errors import ManifestError, StoreError
from orchestration.storage.store import Store

logger = logging.getLogger(__name__)

USAGE: Final = "usage.json"
WORKER_BYTES: Final = 220_000_000
"Memory of a worker before its first row: Python, Ray, Arrow and the code of a stage."
TORCH_BYTES: Final = 500_000_000
"What torch adds to it."
_MAXRSS_UNIT: Final = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Usage:
    """Resources that one or several attempts at a stage used."""

    seconds: float = 0.0
    memory: int = 0
    "Largest peak memory of a worker in bytes."
    work: int | None = None
    "Number of rows to process according to the recipe; None if the recipe does not say."
    ended_at: float = 0.0
    "End of the last attempt in seconds since the epoch."

    def and_also(self, other: "Usage") -> "Usage":
        """Return the combined usage of these attempts and a later one."""
        return replace(
            other,
            seconds=round(self.seconds + other.seconds, 3),
            memory=max(self.memory, other.memory),
        )


@dataclass(frozen=True)
class Expected:
    """Size of a stage's output as the recipe alone determines it; None if it does not."""

    rows: int | None = None
    "Number of rows of all tables except the rejects; for training, number of samples."
    bytes: int | None = None
    "Size of the output."
    memory: int | None = None
    "Peak memory of a worker in bytes."


@dataclass(frozen=True)
class Workers:
    """The workers of a stage, as its parameters and the size of its inputs determine them."""

    memory: int
    "Peak resident memory of a worker in bytes."
    number: int | None = None
    "Number of workers that run at once; None stands for one per CPU core."


_ADAPTER: Final = TypeAdapter(Usage)


def read_usage(folder: Store) -> Usage:
    """Return the usage of a stage over its finished and failed attempts.

    Raises:
        ManifestError: the file is damaged.
    """
    if not folder.exists(USAGE):
        return Usage()
    try:
        return _ADAPTER.validate_json(folder.read(USAGE))
    except ValidationError as error:
        raise ManifestError(
            f"{folder.uri_of(USAGE)} is damaged ({error.errors()[0]['msg']}); remove this file: it "
            "holds durations alone"
        ) from None


def add_usage(folder: Store, attempt: Usage) -> Usage:
    """Add one attempt to the usage of a stage; return the sum.

    A damaged sum and a failure of the store are logged, as no work depends on them.
    """
    total = replace(attempt, ended_at=time.time())
    try:
        try:
            total = read_usage(folder).and_also(total)
        except ManifestError as error:
            logger.warning("the duration of earlier attempts is lost: %s", error)
        folder.write_bytes(USAGE, _ADAPTER.dump_json(total))
    except StoreError as error:
        logger.warning("the duration of the stage could not be stored: %s", error)
    return total


def peak_memory() -> int:
    """Return the peak resident memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT
