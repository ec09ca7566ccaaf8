"""The Ray session of a workflow: started once, without output to the terminal."""

import logging
import os
import re
import socket
import sys
import uuid
from pathlib import Path

from orchestration.errors import RecipeError, StageError
from orchestration.recipe import ClusterParams
from orchestration.storage.store import Store

logger = logging.getLogger(__name__)

_HOST_AND_PORT = re.compile(r"(?:ray://)?\[?(?P<host>[^/\[\]]+?)\]?:(?P<port>\d{1,5})")
_ANSWER_TIMEOUT_S = 10
_TEMPORARY_VARIABLES = ("RAY_TMPDIR", "TMPDIR")
_DEFAULT_TEMPORARY = "/tmp"
_MAX_SOCKET_PATH = {"linux": 107, "darwin": 103}
_LONGEST_SOCKET = "/ray/session_2000-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"With the largest process id that Linux gives."
# Ray Train's controller inherits the driver's environment and polls at this interval. With the
# default of two seconds, every checkpoint report of a short run waits that long.
_TRAIN_POLL_SECONDS = "0.5"


def check_ray_can_start(params: ClusterParams) -> None:
    """Check what would keep a session of Ray from starting; nothing is started.

    Raises:
        RecipeError: the cluster does not answer at its address; or, for a local session, the folder
            for temporary files is too long or cannot be written.
    """
    if address := params.joined:
        _check_answers(address)
    elif reason := why_not_local():
        raise RecipeError(f"Ray cannot start: {reason}")


def _check_answers(address: str) -> None:
    """Connect to a cluster's address: Ray itself would try for minutes."""
    found = _HOST_AND_PORT.fullmatch(address)
    if not found:  # "auto" and the like
        return
    try:
        socket.create_connection((found["host"], int(found["port"])), _ANSWER_TIMEOUT_S).close()
    except OSError as error:
        raise RecipeError(
            f"no Ray cluster answers at {address} ({error.strerror or error}); correct "
            "cluster.address or RAY_ADDRESS, or leave both out for a session on this machine"
        ) from None


def why_not_local() -> str | None:
    """Return why Ray could not start on this machine, or None.

    Ray puts sockets into a folder for temporary files; a socket's address is a path of limited
    length (``sun_path`` of unix(7)).
    """
    name = next((name for name in _TEMPORARY_VARIABLES if name in os.environ), None)
    folder = os.environ[name] if name else _DEFAULT_TEMPORARY
    what = f"{name} = {folder!r}" if name else folder
    remedy = f"set RAY_TMPDIR to a short folder that you can write to, such as {_DEFAULT_TEMPORARY}"
    if not folder:
        return f"{name} is empty; {remedy}"
    most = _MAX_SOCKET_PATH["darwin" if sys.platform == "darwin" else "linux"]
    room = most - len(_LONGEST_SOCKET)
    if len(os.fsencode(os.path.abspath(folder))) > room:  # noqa: PTH100  (Ray follows no link)
        return f"{what} is longer than {room} bytes, and Ray's sockets lie in it; {remedy}"
    existing = Path(folder).absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        return f"{what} cannot be written to; {remedy}"
    return None


def start_ray(params: ClusterParams, logs: Path) -> None:
    """Join or start a Ray session; do nothing if one is initialized.

    Args:
        params: address of a cluster, or resources of a local session.
        logs: folder in which ``ray`` becomes a link to the logs of a local session.

    Raises:
        RecipeError: a cluster does not answer at the address.
        StageError: no session starts on this machine.
    """
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", _TRAIN_POLL_SECONDS)
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray
    import ray.data

    if ray.is_initialized():
        return
    if address := params.joined:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise RecipeError(
                f"the Ray cluster at {address} cannot be joined ({_first_line(error)}); correct "
                "cluster.address or RAY_ADDRESS, or leave both out for a session on this machine"
            ) from error
    else:
        _start_session(params)
        link = logs / "ray"
        link.unlink(missing_ok=True)
        link.symlink_to(Path(ray._private.worker._global_node.get_logs_dir_path()))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray", "ray.data", "ray.train"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True


def _start_session(params: ClusterParams) -> None:
    """Start a session on this machine; a loaded one needs more than Ray's 30 s at times."""
    import ray

    for is_last in (False, True):
        try:
            ray.init(
                address="local",  # otherwise Ray joins any cluster that still runs on this machine
                num_cpus=params.num_cpus,
                object_store_memory=params.object_store_mb << 20,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
            return
        except Exception as error:  # Ray's own, of no particular class
            ray.shutdown()
            if is_last:
                raise StageError(
                    f"Ray does not start on this machine ({_first_line(error)}); end other "
                    "programs or free memory, then run the same command again"
                ) from error
            logger.warning("Ray did not start, once more: %s", _first_line(error))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


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
