"""Export: a checkpoint → files that other programs read.

Out: ``model.safetensors`` and ``network.json`` (this project's network), ``official.pt`` (the
layout of the released checkpoints), ``timm.pt`` (the image encoder), ``vqkd.pt``, and
``README.md``, the model card. The text tokenizer is ``sentencepiece.bpe.model`` and
``tokenizer_config.json``, which transformers' ``AutoTokenizer.from_pretrained`` reads from the
folder. transformers would give other ids for a tokenizer with ``byte_fallback``, which is therefore
written as ``spm.model``, a name that it does not look for.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file

from model import BEiT3
from model.network.interop import to_official, to_timm
from orchestration import Context, Dataset, Stage, feeding
from orchestration.params import StageParams
from orchestration.storage.store import Store
from pipelines.pretrain.checkpoints import NETWORK_FILE, load_network
from pipelines.tokens import image_tokenizer, text_tokenizer
from tokenizer.text import FILE_NAME, TextTokenizer

FOLDER: Final = "export"
TOKENIZER_CONFIG: Final = "tokenizer_config.json"


class Params(StageParams):
    """No parameters."""


def stage(
    params: Params,
    *,
    checkpoint: Stage,
    evaluation: Stage,
    text_tokenizer: Stage,
    image_tokenizer: Stage,
) -> Stage:
    """Return the stage ``export``.

    Args:
        params: the recipe's section.
        checkpoint: ``pretrain``.
        evaluation: ``evaluate``, whose numbers the model card shows.
        text_tokenizer: ``text_tokenizer``.
        image_tokenizer: ``image_tokenizer``.
    """
    return Stage(
        "export",
        lambda context: run(context, params),
        params,
        feeding(
            checkpoint=checkpoint,
            evaluation=evaluation,
            text_tokenizer=text_tokenizer,
            image_tokenizer=image_tokenizer,
        ),
        version=3,
    )


def run(context: Context, params: Params) -> None:
    """Write the files as one task."""
    names = context.run_task(
        export,
        context.folder.sub(FOLDER),
        context.input("checkpoint"),
        context.input("text_tokenizer"),
        context.input("image_tokenizer"),
        context.input("evaluation").manifest.numbers,
    )
    context.commit(files=[f"{FOLDER}/{name}" for name in names])


def export(
    target: Store,
    checkpoint: Dataset,
    text: Dataset,
    images: Dataset,
    evaluation: Mapping[str, float],
) -> list[str]:
    """Write the export folder; return the names of its files."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_text_tokenizer(folder, Path(text.fetch(text_tokenizer.MODEL_FILE)))
        write_export(folder, load_network(checkpoint), evaluation)
        shutil.copyfile(images.fetch(image_tokenizer.MODEL_FILE), folder / "vqkd.pt")
        for path in sorted(folder.iterdir()):
            target.write_file(path.name, path)
        return sorted(path.name for path in folder.iterdir())


def write_text_tokenizer(folder: Path, model: Path) -> None:
    """Write the text tokenizer in the files that its readers look for."""
    if TextTokenizer.load(model).has_byte_pieces:
        shutil.copyfile(model, folder / text_tokenizer.MODEL_FILE)
        return
    shutil.copyfile(model, folder / FILE_NAME)
    config = {"tokenizer_class": "XLMRobertaTokenizer"}
    (folder / TOKENIZER_CONFIG).write_text(json.dumps(config))


def write_export(folder: Path, network: BEiT3, evaluation: Mapping[str, float]) -> None:
    """Write the network in each layout, and the model card."""
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    config = network.config
    (folder / NETWORK_FILE).write_text(json.dumps(config.to_dict(), indent=1))
    official, left = to_official(state, config)
    torch.save({"model": {name: t.clone() for name, t in official.items()}}, folder / "official.pt")
    timm = {name: tensor.clone() for name, tensor in to_timm(state, config).items()}
    torch.save(timm, folder / "timm.pt")
    has_byte_pieces = (folder / text_tokenizer.MODEL_FILE).exists()
    card = model_card(config.to_dict(), left, evaluation, has_byte_pieces)
    (folder / "README.md").write_text(card)


def _timm_reader(config: Mapping[str, object]) -> str:
    model = "a `beit3_*` model" if config["subln"] else "a plain `vit_*` (LayerNorm eps 1e-5)"
    return f"`timm.create_model(…, checkpoint_path=…, num_classes=0, global_pool='token')`, {model}"


def model_card(
    config: Mapping[str, object],
    left: list[str],
    evaluation: Mapping[str, float],
    has_byte_pieces: bool,
) -> str:
    """Return the model card."""
    text = (
        f"| `{text_tokenizer.MODEL_FILE}` | `tokenizer.text.TextTokenizer.load`; not transformers, "
        "whose XLM-R ignores byte pieces |"
        if has_byte_pieces
        else f"| `{FILE_NAME}`, `{TOKENIZER_CONFIG}` | `transformers.AutoTokenizer` |"
    )
    lines = [
        "# BEiT-3 checkpoint",
        "",
        "Pretrained by masked data modeling on images, texts and pairs.",
        "",
        "| file | read by |",
        "|---|---|",
        "| `model.safetensors`, `network.json` | `model.BEiT3` |",
        "| `official.pt` | programs that read the released checkpoints |",
        f"| `timm.pt` | {_timm_reader(config)} |",
        text,
        "| `vqkd.pt` | `tokenizer.VQKD.load` |",
        "",
        "## Network",
        "",
        "| field | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in config.items()),
        "",
        "## Evaluation on held-out rows",
        "",
        "| metric | value |",
        "|---|---|",
        *(f"| {name} | {value:.4g} |" for name, value in sorted(evaluation.items())),
        "",
    ]
    if config["attention"] == "shared":
        lines += [
            "`official.pt` repeats the shared attention for both modalities; it is exact for "
            "images alone and for texts alone.",
            "",
        ]
    if left:
        lines += [
            f"{len(left)} tensors of the vision-language experts have no name in the official "
            "layout and are in `model.safetensors` only.",
            "",
        ]
    return "\n".join(lines)
