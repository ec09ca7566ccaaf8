"""Whether the machine has the memory that the workers of a plan's stages are predicted to take."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from orchestration.plan import PlannedStage, State
from orchestration.recipe import ClusterParams
from orchestration.reporting.estimates import Estimate
from orchestration.reporting.results import human_bytes

_CGROUP_LIMITS: Final = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)


def memory_warnings(
    plan: Sequence[PlannedStage],
    estimates: Mapping[str, Estimate],
    cluster: ClusterParams,
    available: int,
) -> Iterator[str]:
    """Yield a line for each stage to run whose workers together need more than there is.

    Args:
        plan: the stages with their states.
        estimates: by stage name.
        cluster: cores of the session.
        available: bytes that the workers of a stage may take.
    """
    for planned in plan:
        workers = estimates[planned.stage.name].workers
        if planned.state is State.FRESH or workers is None:
            continue
        number = workers.number or cluster.num_cpus or os.cpu_count() or 1
        if number * workers.memory <= available:
            continue
        fitting = available // workers.memory
        if not fitting:
            remedy = "use a larger machine, or smaller slices and caches"
        elif workers.number is None:
            remedy = f"set cluster.num_cpus={fitting}, or use a larger machine"
        else:
            remedy = f"use at most {fitting} on a machine"
        yield (
            f"{planned.stage.name}: {number} workers of about {human_bytes(workers.memory)} need "
            f"{human_bytes(number * workers.memory)} of machine memory, and "
            f"{human_bytes(available)} are available; {remedy}"
        )


def machine_memory(cluster: ClusterParams) -> int | None:
    """Return the bytes of this machine's memory; None if the workflow would join a cluster.

    A container's limit counts, and the object store of the session is left out.
    """
    if cluster.joined:
        return None
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in map(Path, _CGROUP_LIMITS):
        if path.is_file() and (text := path.read_text().strip()).isdigit():
            sizes.append(int(text))
    return min(sizes) - (cluster.object_store_mb << 20)
