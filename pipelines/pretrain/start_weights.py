"""Given weights as they are read, and their names and shapes as far as a plan knows them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from model import BEiT3Config
from model.network.weight_files import read_weights
from orchestration.errors import RecipeError
from orchestration.params import is_uri
from orchestration.storage.remote_files import head_of
from pipelines.ingest.preview import form_of
from pipelines.pretrain.start_source import Folder, is_folder, open_folder
from pipelines.tokens.given_weights import safetensors_shapes

_HEAD_BYTES: Final = 1 << 20
_TORCH_HEADS: Final = (b"PK\x03\x04", b"\x80")
Opener = Callable[[str], Folder]
"Finds the folder at a location."


@dataclass(frozen=True)
class Weights:
    """Given weights; as far as a plan knows them, on the device ``meta``."""

    state: Mapping[str, Tensor]
    "As their file holds them."
    folder: Folder | None = None
    "The checkpoint or export that they are in."
    config: BEiT3Config | None = None
    "The configuration that lies beside them."


def read(location: str, opened: Opener = open_folder) -> Weights:
    """Read weights; ``location`` is a path, or an object store's folder."""
    if is_folder(location):
        folder = opened(location)
        return Weights(folder.weights(), folder, folder.config())
    return Weights(read_weights(location))


def outline(location: str, opened: Opener = open_folder) -> Weights | None:
    """Return names and shapes of weights; None for a file that must be fetched first.

    Of what lies elsewhere, only the beginning of a file or the configuration is read.

    Raises:
        PipelineError: there are no weights.
        ValueError: the file cannot be read.
    """
    if is_folder(location):
        folder = opened(location)
        config = folder.config()
        return Weights(folder.outline(), folder, config)
    if not is_uri(location):
        return Weights(_shapes(read_weights(location)))
    head = head_of(location, _HEAD_BYTES)
    if (found := safetensors_shapes(head)) is not None:
        return Weights({n: torch.empty(t.shape, device="meta") for n, t in found.items()})
    if head.startswith(_TORCH_HEADS):
        return None
    raise RecipeError(f"{location}: {form_of(head)}, expected a torch or safetensors file")


def _shapes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.empty_like(tensor, device="meta") for name, tensor in state.items()}
