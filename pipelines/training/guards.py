"""What ends a training: too many skipped steps in a row, and copies of the weights that differ."""

from torch import nn

from model.training.copies import different_copy
from orchestration.errors import StageError
from pipelines.training.history import History


def refuse_divergence(history: History, max_skipped_steps: int, where: str) -> None:
    """End a training of which too many steps in a row were skipped.

    Args:
        history: of the steps so far.
        max_skipped_steps: number of consecutive skipped steps that is too many.
        where: place where the samples of these steps are listed, or nothing.

    Raises:
        StageError: so many steps were skipped.
    """
    if history.num_skipped_last < max_skipped_steps:
        return
    spiked = "" if history.spikes is None else "a loss spiked, or "
    raise StageError(
        f"{spiked}loss or gradient was not finite in {history.num_skipped_last} consecutive steps "
        f"up to step {history.step}; lower lr or raise warmup_steps (max_skipped_steps sets how "
        "many are allowed)" + (f"; their samples are listed in {where}" if where else "")
    )


def refuse_different_copies(network: nn.Module, step: int) -> None:
    """End a training whose workers no longer have the same weights; every worker must call it.

    Args:
        network: of the worker.
        step: number of steps done.

    Raises:
        StageError: the copy of a worker differs from those of the others.
    """
    found = different_copy(network)
    if found is not None:
        name, ranks = found
        raise StageError(
            f"after step {step} the weights {name} of worker {', '.join(map(str, ranks))} differ "
            "from those of the other workers; check the memory of its machine, then run again: the "
            "training continues from its newest checkpoint"
        )
