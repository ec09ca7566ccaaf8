"""Checkpoints of a training: ``torch.distributed.checkpoint`` shards and files beside them.

The shards hold ``network``, ``optimizer`` and ``step``. ``history.json`` and ``history.parquet``
continue the curve of the metrics (:mod:`pipelines.training.history`). A task may add files of its
own (``network.json``, ``vqkd.pt``).
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn

from orchestration.session import Session
from pipelines.training.history import History

if TYPE_CHECKING:
    from torch.distributed.checkpoint import FileSystemWriter


class Saver:
    """Saves checkpoints of a training on one worker.

    The step loop waits for the copy of weights and optimizer state into host memory, which is kept
    and used again; they are written while the training goes on.
    """

    def __init__(
        self,
        session: Session,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        history: History,
        write_files: Callable[[Path], None],
    ) -> None:
        """Prepare the copies.

        Args:
            session: the worker's session.
            network: replicated or sharded over the workers.
            optimizer: over the network's parameters.
            history: of the steps so far.
            write_files: writes the task's own files into a folder; only the first worker calls it.
        """
        from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

        self._session, self._network, self._optimizer = session, network, optimizer
        self._history, self._write_files = history, write_files
        on_gpu = session.device.type == "cuda"
        self._stager = DefaultStager(
            StagingOptions(
                use_pinned_memory=on_gpu,
                use_shared_memory=False,
                use_async_staging=False,
                use_non_blocking_copy=on_gpu,
            )
        )

    def save(self, *, now: bool = False, is_last: bool = False) -> None:
        """Save a checkpoint after the last step of the history; every worker must call it.

        For ``now``, ``is_last`` and errors see :meth:`Session.save`.
        """
        self._session.save(self._history.step, self._copy, now=now, is_last=is_last)

    def _copy(self, folder: Path, group: dist.ProcessGroup | None) -> Callable[[], None]:
        import torch.distributed.checkpoint as dcp

        state = self._stager.stage(
            {
                "network": self._network.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "step": self._history.step,
            }
        )
        assert isinstance(state, dict)
        if self._session.rank == 0:
            self._history.write(folder)
            self._write_files(folder)
        writer = _file_writer(folder)
        alone = group is None
        return lambda: dcp.save(state, storage_writer=writer, process_group=group, no_dist=alone)


def _file_writer(folder: Path) -> "FileSystemWriter":
    """Return a writer into a local folder whose errors are those of the disk.

    After one, torch ends the archive that is cut short, and raises that it is.
    """
    import torch.distributed.checkpoint as dcp

    class Writer(dcp.FileSystemWriter):
        def write_data(self, *args: Any) -> Any:
            try:
                return super().write_data(*args)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise

    # The folder is temporary: the copies in the store are the durable ones.
    return Writer(folder, sync_files=False)


def restore(
    session: Session,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    history: History,
    read_files: Callable[[Path], None],
) -> None:
    """Load the checkpoint to continue from, if there is one, into network, optimizer and history.

    The optimizer must be new, with a learning rate of 0. ``read_files`` reads the task's own files.
    """
    import torch.distributed.checkpoint as dcp

    with session.starting_checkpoint() as folder:
        if folder is None:
            return
        # An optimizer has no state before its first step: a step without gradient and learning
        # rate creates the tensors that the checkpoint is then read into.
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        state: dict[str, Any] = {
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": 0,
        }
        # A single worker exchanges nothing, see orchestration/checkpoint_writer.py.
        dcp.load(state, checkpoint_id=folder, no_dist=session.num_workers == 1)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        history.restore(folder)
        read_files(folder)


def load_network_state(folder: Path, network: nn.Module) -> None:
    """Load the weights of a checkpoint into a network, without workers."""
    import torch.distributed.checkpoint as dcp

    state = {"network": network.state_dict()}
    dcp.load(state, checkpoint_id=folder, no_dist=True)
    network.load_state_dict(state["network"])
