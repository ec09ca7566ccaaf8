"""Which failures of training workers are repeated, and when that ends."""

import pytest
import torch
from ray.exceptions import ActorDiedError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from orchestration.errors import ManifestError, RecipeError, StageError, StoreError
from orchestration.termination import WorkerTerminated
from orchestration.training_failures import ending_in_time, may_pass


def error_of(work) -> Exception:
    with pytest.raises(Exception) as error:
        work()
    return error.value


@pytest.mark.parametrize(
    "error",
    [
        StoreError("s3://b/k: 503 SlowDown"),
        OSError(5, "Input/output error"),
        ConnectionResetError("reset"),
        TimeoutError("slow"),
        MemoryError(),
        EOFError(),
        ActorDiedError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        torch.distributed.DistBackendError("NCCL error: remote process exited"),
        torch.distributed.DistNetworkError("could not connect"),
        RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [::1]:4"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    ],
    ids=lambda error: f"{type(error).__name__} {error}"[:40],
)
def test_a_failure_of_a_machine_or_the_network_may_pass(error):
    assert may_pass(error)


@pytest.mark.parametrize(
    "error",
    [
        StageError("loss was not finite"),
        ManifestError("damaged"),
        RecipeError("wrong"),
        error_of(lambda: int("x")),
        error_of(lambda: {}["x"]),
        error_of(lambda: [][1]),
        error_of(lambda: None.x),
        error_of(lambda: 1 // 0),
        error_of(lambda: open("/nowhere/x")),  # noqa: PTH123, SIM115
        error_of(lambda: torch.zeros(2, 3) @ torch.zeros(2, 3)),
        error_of(lambda: torch.linalg.inv(torch.zeros(2, 2))),
        error_of(lambda: torch.nn.Linear(2, 2).load_state_dict({})),
        error_of(lambda: torch.zeros(2, requires_grad=True).sum().backward(torch.zeros(3))),
        PermissionError("no"),
        NotImplementedError("later"),
        AssertionError(),
    ],
    ids=lambda error: f"{type(error).__name__} {error}"[:40],
)
def test_an_error_of_the_training_itself_would_come_again(error):
    assert not may_pass(error)


def seen(callback, *errors: Exception) -> bool:
    """Return whether a failure of workers ends the training."""
    try:
        callback.after_exception(None, dict(enumerate(errors)))
    except Exception as error:
        assert error in errors
        return True
    return False


def ending(newest_step=lambda: 0, max_failures: int = 99, within_hours: float = 1.0):
    return ending_in_time(newest_step, max_failures, within_hours)


def test_of_several_workers_one_lasting_error_ends_the_training():
    lost = RuntimeError("gloo: Connection closed by peer")
    assert not seen(ending(), lost, ActorDiedError())
    assert seen(ending(), lost, KeyError("x"))


def test_the_same_error_twice_without_a_checkpoint_in_between_ends_the_training():
    full = [torch.OutOfMemoryError(f"CUDA out of memory: {free} MiB free") for free in (70, 61)]
    callback = ending()
    assert not seen(callback, full[0]) and seen(callback, full[1])
    step = [15]
    callback = ending(lambda: step[0])
    assert not seen(callback, full[0])
    step[0] = 30
    assert not seen(callback, full[1])
    assert not seen(callback, RuntimeError("NCCL error")) and not seen(callback, full[0])


def test_a_store_that_does_not_say_which_checkpoint_is_newest_ends_nothing():
    def unknown() -> int:
        raise StoreError("s3: 503")

    callback = ending(unknown)
    assert not any(seen(callback, RuntimeError("NCCL error")) for _ in range(5))


@pytest.mark.parametrize("error", [StoreError("s3: 503"), TimeoutError("slow"), ActorDiedError()])
def test_a_store_or_a_machine_may_be_out_of_reach_for_long(error):
    callback = ending()
    assert not any(seen(callback, error) for _ in range(5))


@pytest.mark.parametrize(
    ("hours_between", "num_before_the_end"),
    [(24.0, None), (9.0, None), (8.0, 3), (0.0, 3)],
)
def test_a_failure_a_day_does_not_end_a_training_and_many_in_an_hour_do(
    monkeypatch, hours_between, num_before_the_end
):
    now = [1e6]
    monkeypatch.setattr("orchestration.training_failures.time.monotonic", lambda: now[0])
    callback = ending(max_failures=3, within_hours=24.5)
    for number in range(14):
        now[0] += 3600 * hours_between
        try:
            callback.after_exception(None, {0: ActorDiedError()})
        except StageError as error:
            assert number == num_before_the_end
            words = "4 failures within 24.5 h are more than max_failures = 3; the last one: "
            assert str(error).startswith(words)
            return
    assert num_before_the_end is None


def test_a_machine_that_was_taken_away_is_no_failure():
    taken = ActorDiedError()
    taken._preempted = True
    assert taken.preempted
    callback = ending(max_failures=0)
    wrapped = WorkerHealthCheckFailedError("no answer", taken)
    for error in (taken, wrapped, WorkerTerminated("SIGTERM")):
        for _ in range(3):
            assert not seen(callback, error, RuntimeError("gloo: Connection closed by peer"))
    with pytest.raises(StageError, match="1 failures within"):
        callback.after_exception(None, {0: ActorDiedError()})
