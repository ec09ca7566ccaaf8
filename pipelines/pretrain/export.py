"""Export: a checkpoint → files that other programs read.

Out: ``model.safetensors`` and ``network.json`` (this project's network); ``official.pt`` (the
layout of the released checkpoints, if the authors' classes compute the same, otherwise
``torchscale.pt``); ``timm/`` (the image encoder with its preprocessing);
``sentencepiece.bpe.model`` and ``tokenizer_config.json`` (transformers' ``AutoTokenizer``);
``vqkd.pt``, unless the codes are another tokenizer's; and ``README.md``, the model card. A text
tokenizer of which transformers would give other ids (as with ``byte_fallback``) is written as
``spm.model``, a name that it does not look for.
``beit3 export --check`` compares an export with the programs that read it.
"""

import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch

from model import BEiT3
from model.network.interop import to_official, to_timm
from model.network.loading import Part, part_of
from model.network.pretrained import save_state
from orchestration import Context, Dataset, Stage, feeding
from orchestration.params import StageParams
from orchestration.reporting.usage import TORCH_BYTES, WORKER_BYTES, Workers
from orchestration.storage.store import Store
from pipelines.pretrain.checkpoints import load_network
from pipelines.pretrain.foreign_configs import official_file, timm_config, tokenizer_config
from pipelines.pretrain.model_card import model_card
from pipelines.pretrain.params import Params as PretrainParams
from pipelines.pretrain.provenance import Provenance
from pipelines.pretrain.start_source import EXPORT as FOLDER
from pipelines.pretrain.start_source import WEIGHTS_FILE
from pipelines.tokens import image_tokenizer, text_tokenizer
from tokenizer.text import FILE_NAME, TextTokenizer

TIMM_FOLDER: Final = "timm"
TOKENIZER_CONFIG_FILE: Final = "tokenizer_config.json"
VQKD_FILE: Final = "vqkd.pt"
CARD_FILE: Final = "README.md"
_CODEBOOK: Final = "image_tokenizer"
_STREAMS: Final = ("images", "texts", "pairs")


class Params(StageParams):
    """No parameters."""


def stage(
    params: Params,
    *,
    checkpoint: Stage,
    evaluation: Stage,
    text_tokenizer: Stage,
    image_tokenizer: Stage | None,
    images: Stage,
    texts: Stage,
    pairs: Stage,
    origin: Provenance,
) -> Stage:
    """Return the stage ``export``.

    Args:
        params: the recipe's section.
        checkpoint: ``pretrain``.
        evaluation: ``evaluate``, whose numbers the model card shows.
        text_tokenizer: ``text_tokenizer``.
        image_tokenizer: ``image_tokenizer``; None if the codes are another tokenizer's.
        images: ``image_tokens``, whose rows the model card counts.
        texts: ``text_tokens``; likewise.
        pairs: ``pair_tokens``; likewise.
        origin: recipe and licenses, for the model card.
    """
    codebook = {} if image_tokenizer is None else {_CODEBOOK: image_tokenizer}
    return Stage(
        "export",
        lambda context: run(context, origin),
        params,
        feeding(
            checkpoint=checkpoint,
            evaluation=evaluation,
            text_tokenizer=text_tokenizer,
            **codebook,
            images=images,
            texts=texts,
            pairs=pairs,
        ),
        version=7,
        workers=lambda inputs: workers(checkpoint.params),
    )


def _counts(dataset: Dataset) -> dict[str, int]:
    """Return the rows of each table of a token dataset."""
    return {name: dataset.table(name).num_rows for name in ("train", "held_out")}


def workers(train: StageParams) -> Workers:
    """Predict the memory of the one worker: the weights and their copies in other layouts."""
    assert isinstance(train, PretrainParams)
    return Workers(WORKER_BYTES + TORCH_BYTES + 3 * train.network.weight_bytes(), 1)


def run(context: Context, origin: Provenance) -> None:
    """Write the files as one task."""
    names = context.run_task(
        export,
        context.folder.sub(FOLDER),
        context.input("checkpoint"),
        context.input("text_tokenizer"),
        context.input(_CODEBOOK) if _CODEBOOK in context.stage.inputs else None,
        context.input("evaluation").manifest.numbers,
        replace(origin, rows={role: _counts(context.input(role)) for role in _STREAMS}),
    )
    context.commit(files=[f"{FOLDER}/{name}" for name in names])


def export(
    target: Store,
    checkpoint: Dataset,
    text: Dataset,
    images: Dataset | None,
    evaluation: Mapping[str, float],
    made: Provenance,
) -> list[str]:
    """Write the export folder; return the names of its files.

    Args:
        target: the folder.
        checkpoint: output of ``pretrain``.
        text: output of ``text_tokenizer``.
        images: output of ``image_tokenizer``; None if the codes are another tokenizer's.
        evaluation: metrics on held-out rows.
        made: what the network was made from.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_export(
            folder,
            load_network(checkpoint),
            vocabulary=Path(text.fetch(text_tokenizer.MODEL_FILE)),
            codebook=None if images is None else Path(images.fetch(image_tokenizer.MODEL_FILE)),
            evaluation=evaluation,
            made=made,
        )
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        names = [path.relative_to(folder).as_posix() for path in paths]
        for name in names:
            target.write_file(name, folder / name)
        return names


def write_export(
    folder: Path,
    network: BEiT3,
    *,
    vocabulary: Path | None,
    codebook: Path | None,
    evaluation: Mapping[str, float],
    made: Provenance,
) -> None:
    """Write the files of an export.

    Args:
        folder: the export.
        network: with or without its prediction heads.
        vocabulary: SentencePiece model; None if it is not known.
        codebook: VQ-KD; None if it is not known.
        evaluation: metrics on held-out rows.
        made: what the network was made from.
    """
    omitted = write_network(folder, network)
    text_file = None
    if vocabulary is not None:
        text_file = write_text_tokenizer(folder, vocabulary, network.config.max_text_length)
    if codebook is not None:
        shutil.copyfile(codebook, folder / VQKD_FILE)
    card = model_card(
        network.config, omitted, text_file, evaluation, has_codebook=codebook is not None, made=made
    )
    (folder / CARD_FILE).write_text(card)


def write_network(folder: Path, network: BEiT3) -> list[str]:
    """Write the network in each layout; return what the official one does not have."""
    state = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    config, parts = network.config, _parts_of(state)
    network.save_pretrained(folder)
    official, omitted = to_official(state, config, parts)
    copies = {name: tensor.clone() for name, tensor in official.items()}
    torch.save({"model": copies}, folder / official_file(config))
    (folder / TIMM_FOLDER).mkdir(exist_ok=True)
    save_state(to_timm(state, config, parts), folder / TIMM_FOLDER / WEIGHTS_FILE)
    (folder / TIMM_FOLDER / "config.json").write_text(json.dumps(timm_config(config), indent=1))
    return omitted


def write_text_tokenizer(folder: Path, model: Path, max_length: int) -> str:
    """Write the text tokenizer in the files that its readers look for; return its file's name.

    Args:
        folder: the export.
        model: SentencePiece model.
        max_length: longest text of the network in tokens.
    """
    text = TextTokenizer.load(model)
    if not text.is_read_by_transformers:
        shutil.copyfile(model, folder / text_tokenizer.MODEL_FILE)
        return text_tokenizer.MODEL_FILE
    shutil.copyfile(model, folder / FILE_NAME)
    settings = tokenizer_config(text, max_length)
    (folder / TOKENIZER_CONFIG_FILE).write_text(json.dumps(settings, indent=1))
    return FILE_NAME


def _parts_of(state: Iterable[str]) -> list[Part]:
    return sorted({part_of(name) for name in state})
