"""The Ray session of a workflow: started once, without output to the terminal."""

import logging
import os
import uuid
from pathlib import Path

from orchestration.errors import RecipeError
from orchestration.recipe import ClusterParams
from orchestration.storage.store import Store

# Ray Train's controller inherits the driver's environment and polls at this interval. With the
# default of two seconds, every checkpoint report of a short run waits that long.
_TRAIN_POLL_SECONDS = "0.5"


def start_ray(params: ClusterParams, logs: Path) -> None:
    """Join or start a Ray session; do nothing if one is initialized.

    Args:
        params: address of a cluster, or resources of a local session.
        logs: folder in which ``ray`` becomes a link to the logs of a local session.
    """
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", _TRAIN_POLL_SECONDS)
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray
    import ray.data

    if ray.is_initialized():
        return
    address = params.address or os.environ.get("RAY_ADDRESS")
    if address:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    else:
        ray.init(
            address="local",  # otherwise Ray joins any cluster that still runs on this machine
            num_cpus=params.num_cpus,
            object_store_memory=params.object_store_mb << 20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        link = logs / "ray"
        link.unlink(missing_ok=True)
        link.symlink_to(Path(ray._private.worker._global_node.get_logs_dir_path()))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray", "ray.data", "ray.train"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True


def check_shared(workdir: Store) -> None:
    """Check that every node of the cluster reads the workdir.

    The driver writes a file, and each node looks for it.

    Raises:
        RecipeError: a node does not find the file; no stage was run.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) == 1 or not workdir.is_local:
        return
    probe = f".probe-{uuid.uuid4().hex}"
    workdir.write_bytes(probe, b"")
    try:
        sees = ray.remote(num_cpus=0)(lambda folder: folder.exists(probe))
        answers = [
            sees.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(workdir)
            for node in nodes
        ]
        blind = [
            node["NodeManagerHostname"]
            for node, answer in zip(nodes, ray.get(answers), strict=True)
            if not answer
        ]
    finally:
        workdir.remove(probe)
    if blind:
        raise RecipeError(
            f"{workdir.uri}: not visible on {', '.join(blind)}; a workflow on several nodes needs "
            "a workdir that all nodes share: s3://… or a network file system"
        )


def num_cpus() -> int:
    """Return the number of CPU cores of the Ray session."""
    import ray

    return int(ray.cluster_resources().get("CPU", 1))
