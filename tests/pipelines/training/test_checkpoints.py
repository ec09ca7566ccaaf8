"""What a checkpoint holds: the state of its step, although it is written while steps go on."""

import logging
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist

from orchestration.checkpoint_files import checkpoints, newest_whole, step_of
from orchestration.checkpoint_writer import CheckpointWriter
from orchestration.session import Session
from orchestration.storage.store import Store
from pipelines.training.checkpoints import Saver, load_network_state, restore
from pipelines.training.history import History
from tests.processes import run_processes


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


def save_and_restore_alone(_: int, folder: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a single worker exchanges with itself")

    for name in ("new_group", "all_gather_object", "scatter_object_list", "broadcast_object_list"):
        setattr(dist, name, refuse)
    store = Store(folder)
    network = torch.nn.Linear(8, 8)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    network(torch.ones(1, 8)).sum().backward()
    optimizer.step()
    session = Session(0, 1, 1, torch.device("cpu"), None, writer=CheckpointWriter(store, 0, 1))
    history = History(store, log_every=1)
    history.add({"skipped": 0.0}, is_last=False)
    Saver(session, network, optimizer, history, lambda local: None).save(is_last=True)
    newest = newest_whole(store)
    assert newest is not None
    session.starting_checkpoint = lambda: nullcontext(Path(newest.uri))  # type: ignore[method-assign]
    again = torch.nn.Linear(8, 8)
    fresh = torch.optim.AdamW(again.parameters(), lr=0.0)
    restore(session, again, fresh, History(store, log_every=1), lambda local: None)
    assert torch.equal(again.weight, network.weight)


def test_a_single_worker_saves_and_restores_without_its_process_group(tmp_path):
    """Threads of gloo that compute in parallel would slow down every later step."""
    run_processes(1, save_and_restore_alone, tmp_path)


@contextmanager
def no_file_above(num_bytes: int) -> Iterator[None]:
    """Let every longer write fail, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("num_bytes", [100, 10_000, 300_000])
def test_a_disk_that_is_full_fails_a_checkpoint_and_no_step(tmp_path, caplog, num_bytes):
    """It is full at the history, at the first tensor, and within the archive of a tensor."""
    network = torch.nn.Sequential(torch.nn.Linear(256, 256), torch.nn.Linear(256, 1))
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    network(torch.ones(2, 256)).sum().backward()
    optimizer.step()
    folder = Store(tmp_path)
    session = Session(0, 1, 1, torch.device("cpu"), None, writer=CheckpointWriter(folder, 0, 1))
    history = History(folder, log_every=1)
    saver = Saver(session, network, optimizer, history, lambda local: None)
    history.add({"skipped": 0.0}, is_last=False)
    with no_file_above(num_bytes), caplog.at_level(logging.WARNING):
        saver.save(now=True)
    assert "checkpoint of step 1 could not be saved: OSError: [Errno 27] " in caplog.text
    assert "set TMPDIR to change it; the next one is saved when it is due" in caplog.text
    assert newest_whole(folder) is None
    history.add({"skipped": 0.0}, is_last=False)
    saver.save(now=True)
    newest = newest_whole(folder)
    assert newest is not None and step_of(newest) == 2
    assert len(pq.read_table(f"{newest.uri}/history.parquet")) == 2
    load_network_state(Path(newest.uri), network)
