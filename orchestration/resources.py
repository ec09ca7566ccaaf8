"""What the workers of a stage reserve, and whether a session of Ray has as much.

Ray waits without end for a worker that fits on no machine, since a cluster may grow. A session on
this machine never grows, so what it cannot hold is refused before anything runs.
"""

import os
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
    return _missing(needed, params.num_cpus or os.cpu_count() or 1, _gpus_here(needed))


def missing_in_cluster(needed: Resources) -> str | None:
    """Return what all nodes of the running session together lack for a stage, or None."""
    import ray

    held = ray.cluster_resources()
    return _missing(needed, held.get("CPU", 0), held.get("GPU", 0))


def _missing(needed: Resources, cpus: float, gpus: float) -> str | None:
    one = needed.num_workers == 1
    subject = "a worker needs" if one else f"{needed.num_workers} workers at once need"
    for what, each, held in (("CPU core", needed.num_cpus, cpus), ("GPU", needed.num_gpus, gpus)):
        if (total := each * needed.num_workers) > held:
            return f"{subject} {total:g} {what}{'s' if total > 1 else ''}, there are {held:g}"
    return None


def _gpus_here(needed: Resources) -> int:
    if not needed.num_gpus:
        return 0
    import torch  # takes seconds to import

    return torch.cuda.device_count()
