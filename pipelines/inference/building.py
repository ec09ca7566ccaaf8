"""The parts of a model → its network with all weights, in evaluation mode."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from model import BEiT3
from model.finetuning.released import ENCODER_PREFIX
from model.finetuning.task_networks import TaskNetwork
from model.network.layouts import listed
from model.network.loading import check_depth, shape_words
from model.network.pretrained import NotAModel, one_line
from pipelines.finetune.task import Task
from pipelines.finetune.texts import TextEncoder
from pipelines.inference.parts import Source
from tokenizer.text import TextTokenizer
from tokenizer.vqkd import VQKD


def build_network(source: Source, tokenizer: TextTokenizer | None) -> BEiT3 | TaskNetwork:
    """Return the network of a source; prediction heads that its weights lack are removed.

    Raises:
        NotAModel: the weights do not fit the configuration, the task or the labels.
    """
    if source.task is not None:
        return _of_task(source, source.task, tokenizer).eval()
    try:
        return BEiT3.of_weights(source.config, source.state)
    except ValueError as error:
        raise NotAModel(one_line(source.name, error)) from None


def build_image_tokenizer(source: Source) -> VQKD | None:
    """Return the image tokenizer of a source, if it has one.

    Raises:
        NotAModel: its file is damaged, or it has other patches or codes than the network.
    """
    if source.image_tokenizer is None:
        return None
    try:
        tokenizer = VQKD.load(source.image_tokenizer)
    except (ValueError, OSError) as error:
        raise NotAModel(one_line(source.name, error)) from None
    if tokenizer.config.grid != source.config.grid:
        raise NotAModel(
            f"{source.image_tokenizer}: {tokenizer.config.grid} patches along a side, the network "
            f"has {source.config.grid}; copy the whole export"
        )
    predicts_codes = source.config.image_target == "codes"
    if predicts_codes and tokenizer.config.num_codes != source.config.num_codes:
        raise NotAModel(
            f"{source.image_tokenizer}: {tokenizer.config.num_codes} codes, the network predicts "
            f"{source.config.num_codes}; copy the whole export"
        )
    return tokenizer


def _of_task(source: Source, task: Task, tokenizer: TextTokenizer | None) -> TaskNetwork:
    if tokenizer is None:
        raise NotAModel(
            f"{source.name}: it has no text tokenizer; copy the whole export, or name the "
            "SentencePiece model of a file: tokenizer=PATH, or --tokenizer PATH of a command"
        )
    texts = TextEncoder(tokenizer, source.config.max_text_length)
    try:
        check_depth(source.state, source.config.depth, ENCODER_PREFIX)
        with torch.device("meta"):  # no time for initial values
            encoder = BEiT3(source.config)
        encoder.drop_heads()
        outline = {f"{ENCODER_PREFIX}{name}": t for name, t in encoder.state_dict().items()}
        if different := _different(outline, source):  # before memory for wrong sizes is taken
            raise _misfit(source, task, {"of another shape": different})
        network = task.network(encoder.to_empty(device="cpu"), list(source.labels), texts)
    except NotAModel:
        raise
    except (ValueError, OSError) as error:  # a file that the task names is damaged
        raise NotAModel(one_line(source.name, error)) from None
    ours = network.state_dict()
    missing = sorted(ours.keys() - source.state.keys())
    unknown = sorted(source.state.keys() - ours.keys())
    different = _different(ours, source)
    if missing or unknown or different:
        words = {"missing": missing, "unknown": unknown, "of another shape": different}
        raise _misfit(source, task, words)
    network.load_state_dict(dict(source.state))
    return network


def _different(ours: Mapping[str, Tensor], source: Source) -> list[str]:
    """Return in words which weights have another shape than those of the network."""
    return [
        f"{name} is {shape_words(tensor)}, not {shape_words(ours[name])} as {_reason(name, source)}"
        for name, tensor in source.state.items()
        if name in ours and tensor.shape != ours[name].shape
    ]


def _misfit(source: Source, task: Task, words: Mapping[str, Sequence[str]]) -> NotAModel:
    reasons = "; ".join(f"{what}: {listed(some, 3)}" for what, some in words.items() if some)
    return NotAModel(f"{source.name}: the weights are not those of the task {task.name}: {reasons}")


def _reason(name: str, source: Source) -> str:
    of_encoder = name.startswith(ENCODER_PREFIX)
    return "network.json says" if of_encoder else f"{len(source.labels)} labels need"
