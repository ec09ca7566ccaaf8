"""BEiT-3: one Multiway Transformer for images, texts and image-text pairs (arXiv:2208.10442).

- ``network/``: the network itself, its sizes, and the file layouts of other programs.
- ``training/``: masked pretraining: sampling order, masks, objectives, optimizer, the step, costs.
- ``finetuning/``: networks of downstream tasks, their losses and learning rates.
- ``metrics/``: metrics of downstream tasks.

Only tensors and arrays reach this package: pixels, token ids, image codes and labels. It imports
torch and numpy, never Ray, MLflow or another top-level package of the project. It opens no dataset
and reads no recipe: ``pipelines/`` does both.

Shape letters, the same in every docstring:

==  =============================================================================
B   samples in a batch
N   image patches, the square of the patch grid's side
T   text tokens, padding included
S   positions of a sequence: 1 + N + T (class token, patches, text)
D   width of the hidden states
H   attention heads
V   vocabulary size: rows of the token embedding
K   image codes: entries of the image tokenizer's codebook
M   masked positions to predict, over all samples of a micro-batch
C   canonical substreams of a stream (``training/order.py``)
==  =============================================================================

Boolean masks are True where something is masked, padded or to be predicted; an attention mask is
True where a query may attend to a key.
"""

from typing import TYPE_CHECKING, Any

from model.network.config import BEiT3Config

if TYPE_CHECKING:
    from model.network.beit3 import BEiT3, Encoded

__all__ = ["BEiT3", "BEiT3Config", "Encoded"]


def __getattr__(name: str) -> Any:
    """Import the network on first use, so that reading the sizes alone does not import torch."""
    if name not in ("BEiT3", "Encoded"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from model.network import beit3

    return getattr(beit3, name)
