"""Small exports of every kind, written by the code of the stages."""

from dataclasses import replace
from pathlib import Path

import torch

from model import BEiT3, BEiT3Config
from model.finetuning.task_networks import TaskNetwork
from pipelines.finetune import export as finetune_export
from pipelines.finetune.example_builder import ExampleBuilder
from pipelines.finetune.texts import TextEncoder
from pipelines.pretrain import export as pretrain_export
from pipelines.pretrain.provenance import Provenance
from tests.model.networks import RELEASED, network
from tests.pipelines.finetune.examples import LABELS, task_of, text_tokenizer
from tests.pipelines.finetune.jobs import vocabulary
from tokenizer.vqkd import VQKD, VQKDConfig

METRICS = {"dev/accuracy": 0.5}
MAX_TEXT = 24


def config_of(**changes: object) -> BEiT3Config:
    sizes = {"vocab_size": text_tokenizer().num_rows, "max_text_length": MAX_TEXT}
    return replace(RELEASED, **{**sizes, **changes})


def pretrained(folder: Path, **changes: object) -> Path:
    """The export of a pretraining, with all its files."""
    config = config_of(**changes)
    folder.mkdir(parents=True)
    (folder.parent / "spm.model").write_bytes(vocabulary())
    torch.manual_seed(2)
    VQKD(VQKDConfig(
        image_size=config.image_size // 2, patch_size=config.patch_size // 2, width=64, depth=1,
        num_heads=1, decoder_depth=1, num_codes=config.num_codes, kmeans=False,
    )).save(folder.parent / "vqkd.pt")  # fmt: skip
    pretrain_export.write_export(
        folder,
        network(config),
        vocabulary=folder.parent / "spm.model",
        codebook=folder.parent / "vqkd.pt",
        evaluation={"accuracy/mlm": 0.5},
        made=Provenance("tiny"),
    )
    return folder


def builder_of(kind: str, **task: object) -> ExampleBuilder:
    """What builds the input of the network of a fine-tuning."""
    made = task_of(kind, **task)
    config = config_of(final_norm=made.final_norm)
    texts = TextEncoder(text_tokenizer(), config.max_text_length)
    return ExampleBuilder(made, config, texts, LABELS[kind])


def network_of(builder: ExampleBuilder) -> TaskNetwork:
    """A network of the task, all of whose weights differ from their initial values."""
    torch.manual_seed(0)
    made = builder.task.network(BEiT3(builder.config), list(builder.numbers), builder.texts)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return made.eval()


def fine_tuned(folder: Path, builder: ExampleBuilder) -> Path:
    """The export of a fine-tuning whose network is :func:`network_of`."""
    folder.mkdir(parents=True)
    (folder.parent / "spm.model").write_bytes(vocabulary())
    finetune_export.write_export(
        folder,
        builder.task,
        network_of(builder).state_dict(),
        builder.config,
        labels=list(builder.numbers),
        vocabulary=folder.parent / "spm.model",
        metrics=METRICS,
        published={},
        made=Provenance("finetune/tiny"),
    )
    return folder
