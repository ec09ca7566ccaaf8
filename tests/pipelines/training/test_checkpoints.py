"""What a checkpoint holds: the state of its step, although it is written while steps go on."""

import threading
from pathlib import Path

import pytest
import torch

from orchestration.checkpoint_files import checkpoints, step_of
from orchestration.checkpoint_writer import CheckpointWriter
from orchestration.session import Session
from orchestration.storage.store import Store
from pipelines.training.checkpoints import Saver, load_network_state
from pipelines.training.history import History


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_each_checkpoint_holds_the_state_of_its_step(tmp_path):
    """The memory of the copy is used again for the next checkpoint, and never by two at once."""
    folder = Store(tmp_path)
    network = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 1))
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    writer = CheckpointWriter(folder, 0, 1)
    session = Session(0, 1, 1, torch.device("cpu"), None, writer=writer)
    history = History(folder, log_every=1)
    go_on = threading.Event()
    saver = Saver(session, network, optimizer, history, lambda local: None)
    copy = saver._copy

    def late(local: Path, group: object):
        write = copy(local, None)
        return lambda: (go_on.wait(30), write())

    saver._copy = late  # type: ignore[method-assign, assignment]
    expected = {}
    for step in range(1, 6):
        network(torch.ones(2, 64)).sum().backward()
        optimizer.step()
        history.add({"skipped": 0.0}, is_last=False)
        go_on.set()  # for the checkpoint before, which this one waits for
        writer.close()
        go_on.clear()
        saver.save()
        expected[step] = {name: value.clone() for name, value in network.state_dict().items()}
        with torch.no_grad():
            network[0].weight.fill_(7.0)  # what a later step does while it is written
    go_on.set()
    writer.close()
    found = {step_of(checkpoint): checkpoint for checkpoint in checkpoints(folder)}
    assert sorted(found) == [1, 2, 3, 4, 5]
    for step, checkpoint in found.items():
        load_network_state(Path(checkpoint.uri), network)
        for name, value in network.state_dict().items():
            assert torch.equal(value, expected[step][name]), (step, name)
