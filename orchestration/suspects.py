"""Slices that end the process of their worker: run alone, then the rows that do it are found.

A crash of native code or a lack of memory ends a worker without an exception, and other slices may
be lost with it. A slice that was lost in every attempt is a suspect: it runs alone in a process of
its own. If that process ends too, the slice itself is the cause. Where its stage can express single
rows as rejects, halves of its range of rows run alone until the rows are found; they become rejects
``killed_worker`` and the others are processed. Elsewhere the stage fails and names the slice.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import pyarrow as pa
import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayError, RayTaskError

from orchestration.resources import Resources
from orchestration.slices import Output, Process, Quarantine, Slice, outputs_of

KILLED_WORKER: Final = "killed_worker"
"Reason of the rejected rows."
_MAX_KILLERS: Final = 8
"A slice with more such rows is not searched further: its worker rather than its rows is at fault."
_NODE_ATTEMPTS: Final = 3

T = TypeVar("T")


class WorkerLostError(Exception):
    """The process that worked alone on a slice ended without an exception."""


def run_alone(work: Callable[[], T], resources: Resources) -> T:
    """Run a function in a process of its own and return its result.

    Raises:
        WorkerLostError: the process ended; the message says how.
        Exception: what the function raised.
    """

    def task() -> T:  # Ray takes a function, not any callable
        return work()

    remote: Any = ray.remote(
        num_cpus=resources.num_cpus, num_gpus=resources.num_gpus, max_retries=0, max_calls=1
    )(task)
    for attempt in range(_NODE_ATTEMPTS):
        try:
            result: T = ray.get(remote.remote())
            return result
        except RayTaskError as error:
            raise error.cause from error
        except RayError as error:
            # A lost machine says nothing of the slice.
            if not isinstance(error, NodeDiedError) or attempt == _NODE_ATTEMPTS - 1:
                raise WorkerLostError(_words(error)) from error
    raise AssertionError


def killing_rows(
    slice_: Slice, factory: Callable[[], Process], resources: Resources
) -> list[int] | None:
    """Return the numbers of the rows that end a worker which processes them.

    Args:
        slice_: a slice that ends its worker; the payload is a range of rows.
        factory: makes the process of a worker.
        resources: of a worker.

    Returns None if there are too many, or none alone: then the slice as a whole is at fault.
    """
    found: list[int] = []
    known_to_kill = [(slice_.payload["start"], slice_.payload["stop"])]
    while known_to_kill:
        start, stop = known_to_kill.pop()
        if stop - start == 1:
            found.append(start)
            if len(found) > _MAX_KILLERS:
                return None
            continue
        middle = (start + stop) // 2
        halves = [
            half
            for half in ((start, middle), (middle, stop))
            if _kills(_part_of(slice_, *half), factory, resources)
        ]
        if not halves:
            return None
        known_to_kill += halves
    return sorted(found)


def _kills(slice_: Slice, factory: Callable[[], Process], resources: Resources) -> bool:
    def probe() -> None:
        for _ in outputs_of(factory()(slice_)):
            pass

    try:
        run_alone(probe, resources)
    except WorkerLostError:
        return True
    except Exception:  # the complete slice will raise it too
        return False
    return False


@dataclass(frozen=True)
class Around:
    """Makes a process that leaves out some rows of a slice and makes them rejects."""

    factory: Callable[[], Process]
    quarantine: Quarantine
    rows: list[int]
    "Numbers of the rows to leave out."
    detail: str
    "How the worker ended."

    def __call__(self) -> Process:
        """Return the process."""
        process = self.factory()

        def around(slice_: Slice) -> Output:
            outputs: list[Output] = []
            start = slice_.payload["start"]
            for row in [*self.rows, slice_.payload["stop"]]:
                if row > start:
                    outputs += outputs_of(process(_part_of(slice_, start, row)))
                if row < slice_.payload["stop"]:
                    outputs.append(self.quarantine(_part_of(slice_, row, row + 1), self.detail))
                start = row + 1
            return joined(outputs)

        return around


def joined(outputs: list[Output]) -> Output:
    """Return the outputs of consecutive parts of a slice as one output."""
    names = dict.fromkeys(name for output in outputs for name in output.tables)
    counters: Counter[str] = Counter()
    for output in outputs:
        counters.update(output.counters)
    return Output(
        num_rows_in=sum(output.num_rows_in for output in outputs),
        tables={
            name: pa.concat_tables([o.tables[name] for o in outputs if name in o.tables])
            for name in names
        },
        counters=dict(counters),
    )


def has_rows(slice_: Slice) -> bool:
    """Return whether a slice is a plain range of rows, whose parts are slices too."""
    return set(slice_.payload) == {"start", "stop"}


def _part_of(slice_: Slice, start: int, stop: int) -> Slice:
    return replace(slice_, payload={"start": start, "stop": stop}, num_rows=stop - start)


def _words(error: RayError) -> str:
    if isinstance(error, OutOfMemoryError):
        return "the machine ran out of memory while it ran alone; give the stage fewer workers"
    return f"its process ended without an exception ({type(error).__name__})"
