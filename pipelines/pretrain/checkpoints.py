"""The network in a checkpoint of pretraining: ``network.json`` beside the shards configures it."""

from pathlib import Path
from typing import Final

from model import BEiT3, BEiT3Config
from orchestration import Dataset
from pipelines.training.checkpoints import load_network_state

NETWORK_FILE: Final = "network.json"


def load_network(checkpoint: Dataset) -> BEiT3:
    """Return the network of a committed pretraining, in evaluation mode."""
    return network_of(checkpoint.fetch_folder(NETWORK_FILE))


def network_of(folder: Path) -> BEiT3:
    """Return the network of a checkpoint in a local folder, in evaluation mode."""
    network = BEiT3(BEiT3Config.from_json((folder / NETWORK_FILE).read_text()))
    load_network_state(folder, network)
    return network.eval()
