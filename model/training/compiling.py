"""Compiled blocks: a graph for every shape of a micro-batch, of which the feed has a small set.

The kinds of blocks and the shapes multiply: blocks with and without a vision-language expert, three
streams, a few caption lengths, and the size of a stream's last micro-batch. torch counts the graphs
of all blocks together and runs further ones eagerly, without an error.
"""

from collections.abc import Callable
from typing import Any, Final

import torch

from model.network.beit3 import BEiT3

MAX_GRAPHS: Final = 128
"Number of graphs up to which a shape that is new is compiled."


def compile_blocks(network: BEiT3, backend: str | Callable[..., Any] = "inductor") -> None:
    """Compile the blocks of a network, in place and before it is spread over workers.

    Shapes are static, as symbolic ones cost speed in every step.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MAX_GRAPHS)
    for block in network.blocks:
        block.compile(backend=backend, dynamic=False)
