"""The parts of a model, as they are read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from model import BEiT3Config
from pipelines.finetune.task import Task


@dataclass(frozen=True)
class Source:
    """The parts of a model."""

    name: str
    "As it was asked for, for messages."
    config: BEiT3Config
    state: Mapping[str, Tensor]
    "Of the network; of a fine-tuned one the encoder as ``network.…`` and the head."
    task: Task | None = None
    "What the network was fine-tuned for; None after a pretraining."
    labels: tuple[str, ...] = ()
    "In the order of the head's scores."
    text_tokenizer: Path | None = None
    "SentencePiece model."
    image_tokenizer: Path | None = None
    "VQ-KD."
    metrics: Mapping[str, float] = field(default_factory=dict)
    "Of the evaluated splits of a fine-tuning."
    card: str | None = None
    "The model card of an export."
