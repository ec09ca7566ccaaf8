"""What keeps Ray from starting is one sentence, before anything is started or written."""

import socket
import sys
from pathlib import Path

import pytest
from ray._private.utils import validate_socket_filepath

from orchestration import doctor
from orchestration.cluster import _start_session, check_ray_can_start, why_not_local
from orchestration.errors import RecipeError, StageError
from orchestration.params import StageParams
from orchestration.recipe import ClusterParams, Recipe
from orchestration.stage import Stage
from orchestration.storage.store import Store
from orchestration.workflow import Workflow
from pipelines.commands.options import console
from tests.s3 import free_port


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in ("RAY_TMPDIR", "TMPDIR", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


def test_the_room_for_a_folder_is_what_ray_allows(monkeypatch):
    socket = "/ray/session_2026-11-26_13-44-50_123456_4194304/sockets/plasma_store"
    longest = 0
    for length in range(1, 200):
        try:
            validate_socket_filepath("/" + "a" * (length - 1) + socket)
        except OSError:
            break
        longest = length
    monkeypatch.setattr("pathlib.Path.exists", lambda self: self == Path("/"))
    monkeypatch.setattr("os.access", lambda path, mode: True)
    for length, fits in ((longest, True), (longest + 1, False)):
        monkeypatch.setenv("TMPDIR", "/" + "a" * (length - 1))
        assert (why_not_local() is None) == fits
    monkeypatch.setenv("TMPDIR", "/" + "é" * (longest // 2 + 1))  # bytes count, not characters
    assert why_not_local() is not None


def test_the_variable_that_ray_follows_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", "/" + "a" * 55)
    with pytest.raises(RecipeError, match=r"TMPDIR = '/a+' is longer than .* set RAY_TMPDIR"):
        check_ray_can_start(ClusterParams())
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    check_ray_can_start(ClusterParams())
    (file := tmp_path / "file").write_text("")
    for value, words in ((f"{file}", "cannot be written"), ("", "is empty")):
        monkeypatch.setattr("orchestration.cluster._MAX_SOCKET_PATH", {sys.platform: 400})
        monkeypatch.setenv("RAY_TMPDIR", value)
        assert words in (why_not_local() or "")


def test_a_cluster_elsewhere_needs_no_folder_here(monkeypatch):
    monkeypatch.setenv("TMPDIR", "/" + "a" * 55)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        for spelled in (address, f"ray://{address}", "auto"):
            check_ray_can_start(ClusterParams(address=spelled))
        monkeypatch.setenv("RAY_ADDRESS", address)
        check_ray_can_start(ClusterParams())


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_does_not_answer_is_named_at_once(scheme):
    address = f"{scheme}127.0.0.1:{free_port()}"
    with pytest.raises(RecipeError, match=f"no Ray cluster answers at {address} .*RAY_ADDRESS"):
        check_ray_can_start(ClusterParams(address=address))


def test_a_workflow_is_refused_before_anything_is_written(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", "/" + "a" * 55)
    workflow = Workflow(Recipe(name="toy"), (Stage("one", lambda context: None, StageParams()),))
    with pytest.raises(RecipeError, match="Ray cannot start: TMPDIR"):
        workflow.run(Store(tmp_path / "work"), console)
    assert not (tmp_path / "work").exists()


def test_doctor_says_the_same(monkeypatch):
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # another test may have a session
    monkeypatch.setenv("TMPDIR", "/" + "a" * 55)
    ok, words = doctor._ray()
    assert not ok and "TMPDIR" in words and "RAY_TMPDIR" in words


class Starting:
    """Stands for ``ray.init`` on a loaded machine."""

    def __init__(self, num_failures: int) -> None:
        self.num_failures, self.num_calls = num_failures, 0

    def __call__(self, **options) -> None:
        self.num_calls += 1
        if self.num_calls <= self.num_failures:
            raise Exception("The current node timed out during startup.\nThis could happen")


@pytest.mark.parametrize(("num_failures", "num_calls"), [(0, 1), (1, 2), (2, 2)])
def test_a_session_that_does_not_start_is_started_once_more(monkeypatch, num_failures, num_calls):
    started = Starting(num_failures)
    monkeypatch.setattr("ray.init", started)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    if num_failures == 2:
        with pytest.raises(StageError) as error:
            _start_session(ClusterParams())
        words = str(error.value)
        assert "timed out during startup" in words and "run the same command again" in words
        assert "\n" not in words
    else:
        _start_session(ClusterParams())
    assert started.num_calls == num_calls
