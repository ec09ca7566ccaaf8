"""Functions run by several processes that exchange tensors, without Ray.

The processes are forked from a server that has imported what they need, so they start at once. They
end by ``os._exit``. A process that were to end as usual could be aborted: a device mesh keeps the
process group beyond ``destroy_process_group``, and a thread of gloo that then releases the last
tensor asks the finalized interpreter for its lock.
"""

import multiprocessing
import tempfile
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

IMPORTED = [
    "torch.distributed.checkpoint",
    "torch.distributed.fsdp",
    "pipelines.finetune.finetune_task",
    "pipelines.pretrain.training_task",
]


def run_processes(number: int, function: Callable[..., None], *arguments: Any) -> None:
    """Call ``function(rank, *arguments)`` in processes of one gloo group; wait for all."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(IMPORTED)
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(
            _run,
            (number, f"file://{folder}/rendezvous", function, arguments),
            nprocs=number,
            start_method="forkserver",
        )


def _run(
    rank: int, number: int, address: str, function: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=number)
    function(rank, *arguments)
    dist.barrier()  # no worker leaves while another still reads from it
    dist.destroy_process_group()
