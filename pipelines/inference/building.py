"""The parts of a model → its network with all weights, in evaluation mode."""

import torch

from model import BEiT3
from model.finetuning.released import ENCODER_PREFIX
from model.finetuning.task_networks import TaskNetwork
from model.network.loading import StateMismatch, load, part_of, shape_words
from model.network.starting import listed
from pipelines.finetune.texts import TextEncoder
from pipelines.inference.source import NotAModel, Source
from tokenizer.text import TextTokenizer


def build_network(source: Source, tokenizer: TextTokenizer | None) -> BEiT3 | TaskNetwork:
    """Return the network of a source; prediction heads that its weights lack are removed.

    Raises:
        NotAModel: the weights do not fit the configuration, the task or the labels.
    """
    with torch.device("meta"):  # no time for initial values
        encoder = BEiT3(source.config)
    encoder = encoder.to_empty(device="cpu")
    if source.task is None:
        parts = {part_of(name) for name in source.state}
        for head in ("mlm_head", "mim_head"):
            if head not in parts:
                delattr(encoder, head)
        try:
            load(encoder, source.state)
        except StateMismatch as error:
            raise NotAModel(f"{source.name}: {' '.join(str(error).split())}") from None
        return encoder.eval()
    return _of_task(source, encoder, tokenizer).eval()


def _of_task(source: Source, encoder: BEiT3, tokenizer: TextTokenizer | None) -> TaskNetwork:
    assert source.task is not None
    if tokenizer is None:
        raise NotAModel(f"{source.name}: it has no text tokenizer; copy the whole export")
    texts = TextEncoder(tokenizer, source.config.max_text_length)
    network = source.task.network(encoder, list(source.labels), texts)
    ours = network.state_dict()
    missing = sorted(ours.keys() - source.state.keys())
    unknown = sorted(source.state.keys() - ours.keys())
    different = [
        f"{name} is {shape_words(tensor)}, not {shape_words(ours[name])} as {_reason(name, source)}"
        for name, tensor in source.state.items()
        if name in ours and tensor.shape != ours[name].shape
    ]
    if missing or unknown or different:
        words = {"missing": missing, "unknown": unknown, "of another shape": different}
        reasons = "; ".join(f"{what}: {listed(some, 3)}" for what, some in words.items() if some)
        raise NotAModel(
            f"{source.name}: the weights are not those of the task {source.task.name}: {reasons}"
        )
    network.load_state_dict(dict(source.state))
    return network


def _reason(name: str, source: Source) -> str:
    of_encoder = name.startswith(ENCODER_PREFIX)
    return "network.json says" if of_encoder else f"{len(source.labels)} labels need"
