"""Comparison of a fine-tuning's export with the programs that read it: torchscale, transformers."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from model import BEiT3, BEiT3Config
from model.finetuning.released import class_of, encoder_of, heads_of
from model.network.loading import ENCODER, load, part_of
from model.network.weight_files import read_weights
from pipelines.finetune.export import OFFICIAL_FILE
from pipelines.pretrain.check_export import (
    CheckFailed,
    Finding,
    check_text_tokenizer,
    check_torchscale,
    finding_of,
)
from pipelines.pretrain.checkpoints import NETWORK_FILE
from pipelines.pretrain.start_source import WEIGHTS_FILE


def check_export(folder: Path) -> Iterator[Finding]:
    """Yield a finding for each file of the export of a fine-tuning.

    The encoder is compared with torchscale's; the head is compared by its tensors, as the authors'
    classes of the tasks are in no package.

    Raises:
        FileNotFoundError: the folder is not whole.
    """
    for name in (NETWORK_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} has no {name}; give the folder that the stage export wrote"
            )
    config = BEiT3Config.from_json((folder / NETWORK_FILE).read_text())
    network = BEiT3(config).eval()
    network.drop_heads()  # captioning has a head of the same name
    state: dict[str, Tensor] = {}

    def load_weights() -> str:
        state.update(read_weights(folder / WEIGHTS_FILE))
        encoder = encoder_of(state)
        present = {part_of(name) for name in encoder}
        # A network of images alone has no parameters of texts: the others are compared.
        parts = ENCODER if "language" in present else tuple(p for p in ENCODER if p in present)
        load(network, encoder, parts)
        num_encoder = sum(tensor.numel() for tensor in encoder_of(state).values())
        num_head = sum(tensor.numel() for tensor in heads_of(state).values())
        return f"{num_encoder:,} parameters of the encoder, {num_head:,} of the head"

    own = finding_of(WEIGHTS_FILE, "model.BEiT3", load_weights)
    yield own
    if own.ok and class_of(state, config) is not None:
        path = folder / OFFICIAL_FILE
        yield finding_of(path.name, "torchscale", lambda: _check_official(path, network, state))
    yield check_text_tokenizer(folder, config)


def _check_official(path: Path, network: BEiT3, state: Mapping[str, Tensor]) -> str:
    shown = check_torchscale(path, network, heads=())
    saved = read_weights(path)
    for name, tensor in heads_of(state).items():
        if name not in saved:
            raise CheckFailed(f"{name} is missing")
        if not torch.equal(saved[name], tensor):
            raise CheckFailed(f"{name} differs from {WEIGHTS_FILE}")
    return shown
