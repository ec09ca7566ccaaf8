"""What the workers of a stage reserve, and whether a session of Ray has as much.

Ray waits without end for a worker that fits on no machine, since a cluster may grow. A session on
this machine never grows, so what it cannot hold is refused before anything runs.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from orchestration.recipe import ClusterParams


@dataclass(frozen=True)
class Resources:
    """What Ray reserves for the workers of a stage."""

    num_cpus: float = 1
    "CPU cores per worker."
    num_gpus: float = 0
    "GPUs per worker."
    num_workers: int = 1
    "Workers that must run at the same time; those of slices may run one after another."


def missing_here(needed: Resources, params: ClusterParams) -> str | None:
    """Return what a session on this machine lacks for a stage, or None.

    Nothing is said of a cluster that is joined by its address.
    """
    if params.joined:
        return None
    return _missing(needed, [(params.num_cpus or os.cpu_count() or 1, _gpus_here(needed))])


def missing_in_cluster(needed: Resources) -> str | None:
    """Return what the nodes of the running session lack for a stage, or None."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return _missing(needed, [(node.get("CPU", 0), node.get("GPU", 0)) for node in nodes])


def has_room_now(needed: Resources) -> bool:
    """Return whether a node of the running session has free what a worker reserves."""
    from ray._private.state import available_resources_per_node

    nodes = available_resources_per_node().values()
    return any(_fitting(needed, node.get("CPU", 0), node.get("GPU", 0)) for node in nodes)


def _missing(needed: Resources, nodes: Sequence[tuple[float, float]]) -> str | None:
    """Return what is missing of CPU cores and GPUs, of which each node has so many."""
    one = needed.num_workers == 1
    subject = "a worker needs" if one else f"{needed.num_workers} workers at once need"
    held = [sum(each) for each in zip(*nodes, strict=True)]
    wanted = (needed.num_cpus, "CPU core"), (needed.num_gpus, "GPU")
    for (each, what), there in zip(wanted, held or (0, 0), strict=True):
        if (total := each * needed.num_workers) > there:
            return f"{subject} {_number(total, what)}, there are {there:g}"
    fitting = sum(_fitting(needed, *node) for node in nodes)
    if fitting < needed.num_workers:
        parts = " and ".join(_number(each, what) for each, what in wanted if each)
        of_one = f"{parts} of one node" if one else f"{parts} each, of one node"
        return f"{subject} {of_one}; the nodes have room for {fitting or 'none'}"
    return None


def _fitting(needed: Resources, cpus: float, gpus: float) -> int:
    """Return how many of the workers fit on a node; none of them is divided between nodes."""
    most = [
        int(held / each)
        for each, held in ((needed.num_cpus, cpus), (needed.num_gpus, gpus))
        if each
    ]
    return min([*most, needed.num_workers])


def _number(number: float, what: str) -> str:
    return f"{number:g} {what}{'s' if number > 1 else ''}"


def _gpus_here(needed: Resources) -> int:
    if not needed.num_gpus:
        return 0
    import torch  # takes seconds to import

    return torch.cuda.device_count()
