"""Useful work of micro-batches: samples, tokens and operations, without padding and recomputation.

The operations are those of :mod:`model.training.cost`, at the lengths that the samples have: a
text's padding is computed by the network, but it is of no use. Masked positions of a text are
predicted whether the attention crosses documents or not, so all its pairs of positions count.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from model.network.config import BEiT3Config
from model.training.batch import MicroBatch, Stream
from model.training.cost import SampleShape, forward_flops

_PASSES = 3
"A forward, and a backward of twice its operations."


@dataclass(frozen=True)
class Work:
    """What one worker does in a step, and in how much the workers do together."""

    num_samples: float
    "Samples of all workers."
    num_tokens: float
    "Patches and text tokens without padding that enter the networks of all workers."
    flops: float | None = None
    "Useful floating-point operations of this worker alone; None if they are not counted."


def step_work(
    config: BEiT3Config, batches: Iterable[MicroBatch], samples_per_step: Mapping[Stream, int]
) -> Work:
    """Return the work of a step, of which one worker has ``batches``.

    The tokens of the other workers' samples are taken as those of its own, stream by stream.

    Args:
        config: of the network.
        batches: the worker's micro-batches, in host memory.
        samples_per_step: number of samples of each stream in a step, over all workers.
    """
    samples: dict[Stream, int] = {}
    tokens: dict[Stream, int] = {}
    flops = 0
    for batch in batches:
        shapes = sample_lengths(config, batch)
        samples[batch.stream] = samples.get(batch.stream, 0) + sum(shapes.values())
        for shape, number in shapes.items():
            own = number * (shape.text_length + (config.num_patches if shape.image_length else 0))
            tokens[batch.stream] = tokens.get(batch.stream, 0) + own
            flops += number * forward_flops(config, shape)
        flops += _head_flops(config, batch)
    of_all = {stream: samples_per_step[stream] / number for stream, number in samples.items()}
    return Work(
        num_samples=sum(samples_per_step[stream] for stream in samples),
        num_tokens=sum(tokens[stream] * factor for stream, factor in of_all.items()),
        flops=float(_PASSES * flops),
    )


def sample_lengths(config: BEiT3Config, batch: MicroBatch) -> dict[SampleShape, int]:
    """Return the lengths of a micro-batch's samples without padding, with the number of each.

    Predicted positions are left out.
    """
    image_length = 0 if batch.stream == "text" else 1 + config.num_patches
    if batch.text_ids is None:
        assert batch.image_mask is not None
        return {SampleShape(image_length, 0, 0, 0): len(batch.image_mask)}
    number, length = batch.text_ids.shape
    if batch.text_padding is None:
        return {SampleShape(image_length, length, 0, 0): number}
    lengths, numbers = (~batch.text_padding).sum(1).unique(return_counts=True)
    return {
        SampleShape(image_length, length, 0, 0): number
        for length, number in zip(lengths.tolist(), numbers.tolist(), strict=True)
    }


def _head_flops(config: BEiT3Config, batch: MicroBatch) -> int:
    """Return the operations of the heads' forward, at the predicted positions."""
    logits = 0
    if batch.image_mask is not None:
        logits += int(batch.image_mask.sum()) * config.image_outputs
    if batch.text_mask is not None:
        logits += int(batch.text_mask.sum()) * config.vocab_size
    return 2 * config.width * logits
