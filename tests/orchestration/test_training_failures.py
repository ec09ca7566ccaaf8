"""Which failures of training workers are repeated, and when that ends."""

import pytest
import torch
from ray.exceptions import ActorDiedError

from orchestration.errors import ManifestError, RecipeError, StageError, StoreError
from orchestration.training_failures import ending_at_once, may_pass


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


def test_of_several_workers_one_lasting_error_ends_the_training():
    lost = RuntimeError("gloo: Connection closed by peer")
    assert not seen(ending_at_once(), lost, ActorDiedError())
    assert seen(ending_at_once(), lost, KeyError("x"))


def test_the_same_error_twice_without_a_checkpoint_in_between_ends_the_training():
    full = [torch.OutOfMemoryError(f"CUDA out of memory: {free} MiB free") for free in (70, 61)]
    callback = ending_at_once()
    assert not seen(callback, full[0]) and seen(callback, full[1])
    callback = ending_at_once()
    assert not seen(callback, full[0])
    callback.after_report(None, [], None)
    assert not seen(callback, full[1])
    assert not seen(callback, RuntimeError("NCCL error")) and not seen(callback, full[0])


@pytest.mark.parametrize("error", [StoreError("s3: 503"), TimeoutError("slow"), ActorDiedError()])
def test_a_store_or_a_machine_may_be_out_of_reach_for_long(error):
    callback = ending_at_once()
    assert not any(seen(callback, error) for _ in range(5))
