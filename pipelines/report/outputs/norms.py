"""The parameters in a checkpoint or an export, and their norms by part of the network."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from model.network.weight_files import UnreadableWeights, read_weights
from orchestration.checkpoint_files import damage_of
from orchestration.errors import ManifestError
from orchestration.storage.store import Store

_PREFIX: Final = "network."
WEIGHTS_FILE: Final = "model.safetensors"
"Weights of an exported network."


@dataclass(frozen=True)
class PartNorm:
    """The parameters of one part of a network."""

    part: str
    "As in ``blocks.0``."
    num_parameters: int
    norm: float
    "L2 norm over all finite values."
    largest: float
    "Largest absolute value."
    num_not_finite: int


def network_tensors(checkpoint: Store) -> dict[str, Tensor]:
    """Return the tensors of the network in a checkpoint of any training, by name.

    Raises:
        ManifestError: the checkpoint is not whole.
    """
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    if damage := damage_of(checkpoint):
        raise ManifestError(f"{checkpoint.uri}: {damage}")
    folder = Path(checkpoint.fetch(".metadata")).parent
    for path, _ in checkpoint.walk():
        checkpoint.fetch(path)
    saved = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
    tensors = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in saved.items()
        if name.startswith(_PREFIX) and isinstance(entry, TensorStorageMetadata)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no other process loads, too
        dcp.load(tensors, checkpoint_id=folder, no_dist=True)
    return {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}


def exported_tensors(export: Store) -> dict[str, Tensor]:
    """Return the tensors of an exported network, by name.

    Raises:
        ManifestError: its weights are missing or cannot be read.
    """
    try:
        return read_weights(export.fetch(WEIGHTS_FILE))
    except (FileNotFoundError, UnreadableWeights) as error:
        raise ManifestError(f"{export.uri_of(WEIGHTS_FILE)}: cannot be read: {error}") from None


def part_norms(state: Mapping[str, Tensor]) -> list[PartNorm]:
    """Return the norms of the parts of a state, in its order.

    A part is a module at the top, or one block of a list of blocks.
    """
    parts: dict[str, list[Tensor]] = {}
    for name, tensor in state.items():
        if tensor.is_floating_point():
            parts.setdefault(_part(name), []).append(tensor.detach().double())
    return [_norm(part, tensors) for part, tensors in parts.items()]


def _part(name: str) -> str:
    first, *rest = name.split(".")
    return f"{first}.{rest[0]}" if rest and rest[0].isdecimal() else first


def _norm(part: str, tensors: list[Tensor]) -> PartNorm:
    finite = [tensor[tensor.isfinite()] for tensor in tensors]
    num_parameters = sum(tensor.numel() for tensor in tensors)
    return PartNorm(
        part,
        num_parameters,
        sum(float(values.square().sum()) for values in finite) ** 0.5,
        max((float(values.abs().max()) for values in finite if values.numel()), default=0.0),
        num_parameters - sum(values.numel() for values in finite),
    )
