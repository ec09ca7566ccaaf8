"""A file of weights → the parts of a model: its head says the task, as the authors' files do.

The file of a pretraining, and one whose head belongs to no task of the authors, gives the encoder.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter
from torch import Tensor

from model.finetuning.released import CRITERION, ENCODER_PREFIX, word_head_of
from model.network.deduced_config import config_of
from model.network.layouts import in_our_layout, refuse_values
from model.network.loading import ENCODER, part_of
from model.network.official_layout import task_heads
from model.network.weight_files import read_weights
from pipelines.finetune.answer_lists import read_answers
from pipelines.finetune.registry import AnyTask
from pipelines.inference.parts import Source

_TASKS: Final[Mapping[str, dict[str, Any]]] = {
    "retrieval": {"name": "retrieval"},
    "vqa": {"name": "vqa"},
    "nlvr2": {"name": "nlvr2"},
    "imagenet": {"name": "image_classification", "form": "linear"},
    "captioning": {"name": "captioning"},
}
"Parameters of the task by the name of its head, see ``task_heads``."
_IMAGE_HEAD: Final = "mim_head.weight"
"What the file of a pretraining has beside the head for words, and that of a captioning has not."
_SCORES: Final = {
    "vqa": "head.3.weight",
    "nlvr2": "head.dense2.weight",
    "imagenet": "head.weight",
}
"The tensor with a row for each label."
_IMAGENET: Final = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"Mean and standard deviation with which released classifiers of ImageNet were trained."
_ENCODERS: Final = ("beit3.", ENCODER_PREFIX)


def read_model_file(path: Path, labels: str | Path | None) -> Source:
    """Return the parts of the model in a file.

    Args:
        path: in the official layout or this project's.
        labels: file of the labels that a head scores, in their order; None takes True and False
            of NLVR2, and numbers for the labels of another head.

    Raises:
        ValueError: the file is damaged, no whole network, or has another number of labels.
    """
    saved = read_weights(path)
    config, state = config_of(saved), in_our_layout(saved)[1]
    refuse_values(state)
    rest = {name: tensor for name, tensor in saved.items() if not name.startswith(_ENCODERS)}
    heads = task_heads(rest)
    if not heads and (words := word_head_of(saved)) and _IMAGE_HEAD not in saved:
        heads = {"captioning": words}
    head = next(iter(heads), "")
    if head not in _TASKS or len(heads) > 1 or not any(n.startswith(_ENCODERS) for n in saved):
        return Source(str(path), config, state)
    if head == "imagenet":
        config = replace(config, pixel_mean=_IMAGENET[0], pixel_std=_IMAGENET[1])
    refuse_values(heads[head])
    encoder = {f"{ENCODER_PREFIX}{n}": t for n, t in state.items() if part_of(n) in ENCODER}
    of_head = {n.removeprefix(CRITERION): t for n, t in heads[head].items()}
    return Source(
        str(path),
        config,
        encoder | of_head,
        task=TypeAdapter(AnyTask).validate_python(_TASKS[head]),
        labels=_labels(head, of_head, labels),
    )


def _labels(head: str, tensors: Mapping[str, Tensor], given: str | Path | None) -> tuple[str, ...]:
    scores = tensors.get(_SCORES.get(head, ""))
    if scores is None:
        return ()
    if given is not None:
        names = read_answers(str(given))
        if len(names) != len(scores):
            raise ValueError(
                f"{given} has {len(names)} labels, the head scores {len(scores)}; name the labels "
                "of this network"
            )
        return tuple(names)
    if head == "nlvr2" and len(scores) == 2:
        return ("False", "True")
    return tuple(map(str, range(len(scores))))
