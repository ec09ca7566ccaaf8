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
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from orchestration.cluster import why_not_local
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
        ("proxies", _proxies),
        ("disk", lambda: _disk(workdir)),
        ("store: write, read, list, remove", lambda: _store(workdir)),
        ("store: conditional write", lambda: _conditional(workdir)),
        ("MLflow", lambda: _mlflow(tracking, workdir)),
    ]
    if not workdir.is_local:
        checks[6:6] = [
            ("store: endpoint and credentials", lambda: _access(workdir)),
            ("DNS and clock", lambda: _names_and_clock(workdir)),
        ]
    absent = _absent_folders(workdir)
    for name, check in checks:
        try:
            ok, details = check()
        except (PipelineError, OSError, RuntimeError, ConnectionError, ValueError) as error:
            ok, details = False, masked(f"{type(error).__name__}: {error}")
        yield Finding(name, ok, details)
    for folder in absent:
        with suppress(OSError):  # not made, or not empty: something else is written there
            folder.rmdir()


def _absent_folders(workdir: Store) -> list[Path]:
    """Return the folders that a local workdir would need, deepest first."""
    if not workdir.is_local:
        return []
    root = Path(workdir.native_path()).absolute()
    return [folder for folder in (root, *root.parents) if not folder.exists()]


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
    if address == "local" and (reason := why_not_local()):
        return False, reason
    local = {"include_dashboard": False} if address == "local" else {}
    ray.init(address=address, log_to_driver=False, logging_level="ERROR", **local)
    try:
        began = time.monotonic()
        answer = ray.get(ray.remote(num_cpus=0)(lambda: sys.version_info[:2]).remote(), timeout=60)
        same = answer == sys.version_info[:2]
        nodes = sum(node["Alive"] for node in ray.nodes())
        where = "own session" if address == "local" else f"cluster at RAY_ADDRESS={address}"
        cores = ray.cluster_resources().get("CPU", 0)
        words = f"{where}: {nodes} {'node' if nodes == 1 else 'nodes'}, {cores:.0f} cores"
        if not same:
            return False, f"{words}, but a worker runs Python {'.'.join(map(str, answer))}"
        return True, f"{words}, a task in {time.monotonic() - began:.1f} s"
    finally:
        ray.shutdown()


def _disk(workdir: Store) -> tuple[bool, str]:
    folder = Path(workdir.native_path() if workdir.is_local else tempfile.gettempdir())
    while not folder.exists():  # a workdir need not exist yet
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    words = f"{free / 1e9:.0f} GB free at {folder}"
    if free > _MIN_FREE_BYTES:
        return True, words
    return False, f"{words}: at least {_MIN_FREE_BYTES / 1e9:.0f} GB are needed"


def _proxies() -> tuple[bool, str]:
    """Name the proxies of the environment, which downloads and files given by URI go through."""
    from urllib.request import getproxies

    found = getproxies()
    direct = found.pop("no", None)
    if not found:
        return True, "none in the environment"
    words = ", ".join(f"{name}:// through {_shown(proxy)}" for name, proxy in sorted(found.items()))
    return True, f"{words}; not for {direct}" if direct else words


def _shown(proxy: str) -> str:
    return masked(proxy if "://" in proxy else f"http://{proxy}")


def _access(workdir: Store) -> tuple[bool, str]:
    from orchestration.storage.s3_access import S3Access

    return True, S3Access(workdir.storage).words()


def _names_and_clock(workdir: Store) -> tuple[bool, str]:
    import urllib.error
    import urllib.request

    from orchestration.storage.s3_access import S3Access

    endpoint = S3Access(workdir.storage).endpoint
    host = urlsplit(endpoint).hostname or ""
    if proxy := proxy_for(endpoint):
        words = f"{host} through the proxy {proxy}"
    else:
        words = f"{host} is {socket.getaddrinfo(host, None)[0][4][0]}"
    try:
        with urllib.request.urlopen(endpoint, timeout=10) as answer:
            date = answer.headers["Date"]
    except urllib.error.HTTPError as error:  # an error response has a date too
        date = error.headers["Date"]
    if date is None:
        return True, f"{words}; it does not send its time"
    skew = time.time() - parsedate_to_datetime(date).timestamp()
    words = f"{words}; clocks differ by {skew:.0f} s"
    if abs(skew) < _MAX_SKEW_S:
        return True, words
    return False, f"{words}: S3 refuses requests with a wrong time; set this machine's clock"


def proxy_for(url: str) -> str | None:
    """Return the proxy that the environment names for a URL, without its password; or None."""
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    if proxy_bypass(parts.netloc):
        return None
    proxy = getproxies().get(parts.scheme)
    return _shown(proxy) if proxy else None


def _store(workdir: Store) -> tuple[bool, str]:
    folder = workdir.sub(f".doctor-{uuid.uuid4().hex}")
    data = os.urandom(1 << 20)
    try:
        began = time.monotonic()
        folder.write_bytes("probe", data)
        read = {"boto3": folder.read("probe")} if not workdir.is_local else {}
        with folder.open("probe") as file:
            read["pyarrow"] = file.read()
        names = folder.names("", "probe")
        seconds = time.monotonic() - began
    finally:
        folder.remove("")
    if wrong := [library for library, found in read.items() if found != data]:
        return False, f"{' and '.join(wrong)} read other bytes than were written"
    if names != ["probe"]:
        return False, f"the file that was written is not listed: {names}"
    if folder.exists("probe"):
        return False, "the file that was written is still there after its removal"
    by = "" if workdir.is_local else " by boto3 and pyarrow alike"
    return True, f"1 MiB written and read{by} in {seconds * 1000:.0f} ms"


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

    if not (tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or workdir.is_local):
        return True, (
            "not checked: a workdir on an object store needs tracking.uri in the recipe or "
            "MLFLOW_TRACKING_URI; --tracking-uri URI checks one here"
        )
    uri = tracking_uri(tracking, workdir)
    if uri.startswith("sqlite:"):
        return True, masked(uri)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    number = len(MlflowClient(uri).search_experiments())
    return True, f"{masked(uri)} answers, {number} experiments"
