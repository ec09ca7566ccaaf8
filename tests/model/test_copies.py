"""Which tensors of a sharded network are compared between workers."""

import json
from pathlib import Path

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from model.training.copies import different_copy
from tests.processes import run_processes


def work(rank: int, folder: Path) -> None:
    """Shard a matrix whose only row lies on the first worker, beside a buffer that is copied."""
    network = nn.Module()
    network.row, network.rows = (nn.Parameter(torch.ones(size, 8)) for size in (1, 4))
    network.register_buffer("mean", torch.zeros(3))
    fully_shard(network, mesh=init_device_mesh("cpu", (2,), mesh_dim_names=("shard",)))
    found = [different_copy(network)]
    network.mean[1] += rank
    found.append(different_copy(network))
    (folder / str(rank)).write_text(json.dumps(found))


def test_a_shard_that_is_the_whole_tensor_is_no_copy(tmp_path):
    run_processes(2, work, tmp_path)
    for rank in range(2):
        assert json.loads((tmp_path / str(rank)).read_text()) == [None, ["mean", [1]]]
