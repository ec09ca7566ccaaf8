"""Export: a checkpoint → files that other programs read.

Out: ``model.safetensors`` and ``network.json`` (this project's network), ``official.pt`` (the
layout of the released checkpoints), ``timm.pt`` (the picture encoder), ``sentencepiece.bpe.model``
(transformers' ``XLMRobertaTokenizer.from_pretrained`` on the folder), ``vqkd.pt``, and
``README.md``, the model card.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file

from model.network.interop import to_official, to_timm
from orchestration import Context
from orchestration.params import StageParams
from pipelines import image_tokenizer, text_tokenizer
from pipelines.checkpoints import NETWORK_FILE, checkpoint_folder, load_network
from tokenizer.text import FILE_NAME

FOLDER: Final = "export"


class Params(StageParams):
    """Nothing to choose yet."""


def run(context: Context, params: Params) -> None:
    """Write the files in one worker."""
    folder = context.folder.path(FOLDER)
    files = context.run_task(
        export,
        folder,
        checkpoint_folder(context.input("checkpoint")),
        context.input("text_tokenizer").file(text_tokenizer.MODEL_FILE),
        context.input("image_tokenizer").file(image_tokenizer.MODEL_FILE),
        context.input("evaluation").manifest.numbers,
    )
    context.commit(files=files)


def export(
    folder: Path,
    checkpoint: Path,
    text_model: Path,
    image_model: Path,
    evaluation: Mapping[str, float],
) -> list[Path]:
    """Write the export folder anew; return its files."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    network = load_network(checkpoint)
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    config = network.config
    (folder / NETWORK_FILE).write_text(json.dumps(config.to_dict(), indent=1))
    official, left = to_official(state, config)
    torch.save({"model": {name: t.clone() for name, t in official.items()}}, folder / "official.pt")
    timm = {name: tensor.clone() for name, tensor in to_timm(state, config).items()}
    torch.save(timm, folder / "timm.pt")
    shutil.copyfile(text_model, folder / FILE_NAME)
    shutil.copyfile(image_model, folder / "vqkd.pt")
    (folder / "README.md").write_text(model_card(config.to_dict(), left, evaluation))
    return sorted(folder.iterdir())


def _timm_reader(config: Mapping[str, object]) -> str:
    model = "a `beit3_*` model" if config["subln"] else "a plain `vit_*` (LayerNorm eps 1e-5)"
    return f"`timm.create_model(…, checkpoint_path=…, num_classes=0, global_pool='token')`, {model}"


def model_card(
    config: Mapping[str, object], left: list[str], evaluation: Mapping[str, float]
) -> str:
    """Return the model card."""
    lines = [
        "# BEiT-3 checkpoint",
        "",
        "Pretrained by masked data modelling on pictures, texts and pairs.",
        "",
        "| file | read by |",
        "|---|---|",
        "| `model.safetensors`, `network.json` | `model.BEiT3` |",
        "| `official.pt` | programs that read the released checkpoints |",
        f"| `timm.pt` | {_timm_reader(config)} |",
        f"| `{FILE_NAME}` | `transformers.XLMRobertaTokenizer.from_pretrained(folder)` |",
        "| `vqkd.pt` | `tokenizer.VQKD.load` |",
        "",
        "## Network",
        "",
        "| field | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in config.items()),
        "",
        "## On held-out rows",
        "",
        "| measure | value |",
        "|---|---|",
        *(f"| {name} | {value:.4g} |" for name, value in sorted(evaluation.items())),
        "",
    ]
    if config["attention"] == "shared":
        lines += [
            "`official.pt` repeats the shared attention for both modalities: exact for pictures "
            "alone and for texts alone.",
            "",
        ]
    if left:
        lines += [
            f"{len(left)} tensors of the vision-language experts have no place in the official "
            "layout and are in `model.safetensors` only.",
            "",
        ]
    return "\n".join(lines)
