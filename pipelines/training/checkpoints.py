"""Checkpoints of a training: ``torch.distributed.checkpoint`` shards and files beside them.

The shards hold ``network``, ``optimizer`` and ``step``. ``history.json`` and ``history.parquet``
continue the curve of the metrics (:mod:`pipelines.training.history`). A task may add files of its
own (``network.json``, ``vqkd.pt``).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from orchestration.session import Session
from pipelines.training.history import History


def save(
    session: Session,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    history: History,
    write_files: Callable[[Path], None],
) -> None:
    """Save a checkpoint after the last step of ``history``; every worker must call it.

    Args:
        session: the worker's session.
        network: replicated or sharded over the workers.
        optimizer: over the network's parameters.
        history: of the steps so far.
        write_files: writes the task's own files into a folder; only the first worker calls it.
    """
    import torch.distributed.checkpoint as dcp

    step = history.step

    def write(folder: Path) -> None:
        dcp.save(
            {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step},
            checkpoint_id=folder,
        )
        if session.rank == 0:
            history.write(folder)
            write_files(folder)

    session.save(step, write)


def restore(
    session: Session, network: nn.Module, optimizer: torch.optim.Optimizer, history: History
) -> None:
    """Load the newest checkpoint, if there is one, into network, optimizer and history.

    The optimizer must be new, with a learning rate of 0.
    """
    import torch.distributed.checkpoint as dcp

    with session.latest_checkpoint() as folder:
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
        dcp.load(state, checkpoint_id=folder)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        history.restore(folder)


def load_network_state(folder: Path, network: nn.Module) -> None:
    """Load the weights of a checkpoint into a network, without workers."""
    import torch.distributed.checkpoint as dcp

    state = {"network": network.state_dict()}
    dcp.load(state, checkpoint_id=folder, no_dist=True)
    network.load_state_dict(state["network"])
