"""Checkpoints of a training: ``torch.distributed.checkpoint`` shards and JSON files beside them.

The shards hold ``network``, ``optimizer`` and ``step``. ``history.json`` holds the metrics of
every step so far, so that a resumed run still has the whole curve. A task may add files of its own
(``network.json``, ``vqkd.pt``).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from orchestration.session import Session
from orchestration.storage.store import Store

HISTORY_FILE: Final = "history.json"

History = list[dict[str, float]]
"Metrics of each step, with the number of steps done so far under ``step``."


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
        history: metrics of each step so far.
        write_files: writes the task's own files into a folder; only the first worker calls it.
    """
    import torch.distributed.checkpoint as dcp

    step = int(history[-1]["step"])

    def write(folder: Path) -> None:
        dcp.save(
            {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step},
            checkpoint_id=folder,
        )
        if session.rank == 0:
            (folder / HISTORY_FILE).write_text(json.dumps(history))
            write_files(folder)

    session.save(step, write)


def restore(session: Session, network: nn.Module, optimizer: torch.optim.Optimizer) -> History:
    """Load the newest checkpoint in place and return its history, which is empty if there is none.

    The optimizer must be new, with a learning rate of 0.
    """
    import torch.distributed.checkpoint as dcp

    with session.latest_checkpoint() as folder:
        if folder is None:
            return []
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
        history: History = json.loads((folder / HISTORY_FILE).read_text())
        return history


def load_network_state(folder: Path, network: nn.Module) -> None:
    """Load the weights of a checkpoint into a network, without workers."""
    import torch.distributed.checkpoint as dcp

    state = {"network": network.state_dict()}
    dcp.load(state, checkpoint_id=folder, no_dist=True)
    network.load_state_dict(state["network"])


def read_history(checkpoint: Store) -> History:
    """Return the history of a checkpoint."""
    history: History = json.loads(checkpoint.read(HISTORY_FILE))
    return history


def num_skipped_steps(history: Sequence[Mapping[str, float]]) -> int:
    """Return how many steps were skipped."""
    return int(sum(metrics["skipped"] for metrics in history))
