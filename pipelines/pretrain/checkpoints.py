"""Checkpoints of pretraining: ``torch.distributed`` shards with two JSON files beside them.

``network.json`` fixes the network, ``history.json`` holds every step so far, so that a run which
continues draws the whole curve.
"""

import json
from pathlib import Path
from typing import Any, Final

import torch

from model import BEiT3, BEiT3Config
from orchestration import Dataset
from orchestration.training import Session

NETWORK_FILE: Final = "network.json"
HISTORY_FILE: Final = "history.json"


def load_network(checkpoint: Dataset) -> BEiT3:
    """Return the network that a pretraining committed, in evaluation mode."""
    import torch.distributed.checkpoint as dcp

    folder = checkpoint.fetch_folder(NETWORK_FILE)
    config = BEiT3Config.from_dict(json.loads((folder / NETWORK_FILE).read_text()))
    network = BEiT3(config)
    state = {"network": network.state_dict()}
    dcp.load(state, checkpoint_id=folder, no_dist=True)
    network.load_state_dict(state["network"])
    return network.eval()


def save(
    session: Session,
    config: BEiT3Config,
    network: BEiT3,
    optimizer: torch.optim.Optimizer,
    step: int,
    history: list[dict[str, float]],
) -> None:
    """Save a checkpoint; every worker calls it."""
    import torch.distributed.checkpoint as dcp

    def write(folder: Path) -> None:
        dcp.save(
            {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step},
            checkpoint_id=folder,
        )
        if session.rank == 0:
            (folder / NETWORK_FILE).write_text(json.dumps(config.to_dict(), indent=1))
            (folder / HISTORY_FILE).write_text(json.dumps(history))

    session.save(step, write)


def restore(
    session: Session, network: BEiT3, optimizer: torch.optim.Optimizer
) -> tuple[int, list[dict[str, float]]]:
    """Load the newest checkpoint, if any; return the next step and the history so far."""
    import torch.distributed.checkpoint as dcp

    with session.latest_checkpoint() as folder:
        if folder is None:
            return 0, []
        # The optimizer's state comes into being with the first step: a step without gradient and
        # rate makes the tensors that the checkpoint is then read into.
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
        return int(state["step"]), json.loads((folder / HISTORY_FILE).read_text())
