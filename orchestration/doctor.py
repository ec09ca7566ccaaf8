"""``beit3 doctor``: check that everything a workflow needs works on this machine."""

import os
import platform
import shutil
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from orchestration.errors import PipelineError
from orchestration.masking import masked
from orchestration.recipe import TrackingParams
from orchestration.reporting.tracking import tracking_uri
from orchestration.storage.store import Store

_PACKAGES: Final = ("torch", "ray", "pyarrow", "mlflow", "boto3", "sentencepiece", "timm")
_MIN_FREE_BYTES: Final = 10 << 30
_MAX_SKEW_S: Final = 30.0


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    check: str
    "Name of the check."
    ok: bool
    details: str


def examine(workdir: Store, tracking: TrackingParams) -> Iterator[Finding]:
    """Run every check and yield its finding; a check that raises has failed."""
    checks: list[tuple[str, Callable[[], tuple[bool, str]]]] = [
        ("versions", _versions),
        ("CPU and memory", _machine),
        ("GPU", _gpu),
        ("Ray", _ray),
        ("disk", lambda: _disk(workdir)),
        ("store: write, read, list, remove", lambda: _store(workdir)),
        ("store: conditional write", lambda: _conditional(workdir)),
        ("MLflow", lambda: _mlflow(tracking, workdir)),
    ]
    if workdir.storage.endpoint_url or not workdir.is_local:
        checks.insert(5, ("DNS and clock", lambda: _names_and_clock(workdir)))
    for name, check in checks:
        try:
            ok, details = check()
        except (PipelineError, OSError, RuntimeError, ConnectionError, ValueError) as error:
            ok, details = False, masked(f"{type(error).__name__}: {error}")
        yield Finding(name, ok, details)


def _versions() -> tuple[bool, str]:
    found, missing = [f"Python {platform.python_version()}"], []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    words = ", ".join(found)
    return not missing, f"{words}; missing: {', '.join(missing)}" if missing else words


def _machine() -> tuple[bool, str]:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return True, f"{os.cpu_count()} cores, {pages / 1e9:.1f} GB"


def _gpu() -> tuple[bool, str]:
    import torch

    if not torch.cuda.is_available():
        return True, "none; training runs on the CPU"
    number = torch.cuda.device_count()
    return True, f"{number} x {torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}"


def _ray() -> tuple[bool, str]:
    import ray

    if ray.is_initialized():
        return True, "a session of this process runs already"
    # As in a run: without RAY_ADDRESS a session of its own, never another one on this machine.
    address = os.environ.get("RAY_ADDRESS", "local")
    local = {"include_dashboard": False} if address == "local" else {}
    ray.init(address=address, log_to_driver=False, logging_level="ERROR", **local)
    try:
        began = time.monotonic()
        answer = ray.get(ray.remote(num_cpus=0)(lambda: sys.version_info[:2]).remote(), timeout=60)
        same = answer == sys.version_info[:2]
        nodes = sum(node["Alive"] for node in ray.nodes())
        where = "own session" if address == "local" else f"cluster at RAY_ADDRESS={address}"
        words = f"{where}: {nodes} nodes, {ray.cluster_resources().get('CPU', 0):.0f} cores"
        return same, f"{words}, a task in {time.monotonic() - began:.1f} s"
    finally:
        ray.shutdown()


def _disk(workdir: Store) -> tuple[bool, str]:
    folder = Path(workdir.native_path() if workdir.is_local else tempfile.gettempdir())
    while not folder.exists():  # a workdir need not exist yet
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    return free > _MIN_FREE_BYTES, f"{free / 1e9:.0f} GB free at {folder}"


def _names_and_clock(workdir: Store) -> tuple[bool, str]:
    import urllib.error
    import urllib.request

    endpoint = workdir.storage.endpoint_url or "https://s3.amazonaws.com"
    host = urlsplit(endpoint).hostname or ""
    address = socket.getaddrinfo(host, None)[0][4][0]
    try:
        answer = urllib.request.urlopen(endpoint, timeout=10)
        date = answer.headers["Date"]
    except urllib.error.HTTPError as error:  # an error response has a date too
        date = error.headers["Date"]
    skew = time.time() - parsedate_to_datetime(date).timestamp()
    return abs(skew) < _MAX_SKEW_S, f"{host} is {address}; clocks differ by {skew:.0f} s"


def _store(workdir: Store) -> tuple[bool, str]:
    folder = workdir.sub(f".doctor-{uuid.uuid4().hex}")
    data = os.urandom(1 << 20)
    try:
        began = time.monotonic()
        folder.write_bytes("probe", data)
        ok = folder.read("probe") == data and folder.names("", "probe") == ["probe"]
        seconds = time.monotonic() - began
    finally:
        folder.remove("")
    return ok and not folder.exists("probe"), f"1 MiB written and read in {seconds * 1000:.0f} ms"


def _conditional(workdir: Store) -> tuple[bool, str]:
    folder = workdir.sub(f".doctor-{uuid.uuid4().hex}")
    try:
        first = folder.write_if("probe", b"1", None)
        again = folder.write_if("probe", b"2", None)
        swapped = folder.write_if("probe", b"3", first)
        late = folder.write_if("probe", b"4", first)
        ok = bool(first and swapped) and again is None and late is None
    finally:
        folder.remove("")
    if ok:
        return True, "of two concurrent writers one is refused"
    return False, "two concurrent writers both succeed: this store cannot hold the workdir lock"


def _mlflow(tracking: TrackingParams, workdir: Store) -> tuple[bool, str]:
    from mlflow import MlflowClient

    uri = tracking_uri(tracking, workdir)
    if uri.startswith("sqlite:"):
        return True, masked(uri)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    number = len(MlflowClient(uri).search_experiments())
    return True, f"{masked(uri)} answers, {number} experiments"
