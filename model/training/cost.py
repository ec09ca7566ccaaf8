"""Cost of a network and a training step: parameters, operations, memory; nothing is allocated.

Operations are those of matrix products and attention; a backward costs twice a forward. Memory is
what eager execution keeps for the backward, without the allocator's overhead; a compiled network
keeps less.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import torch

from model.network.beit3 import BEiT3
from model.network.config import BEiT3Config, Recomputing
from model.training.batch import Stream

_PARTS: Final = {
    "vision experts": ("experts.vision.fc",),
    "language experts": ("experts.language.fc",),
    "vision-language experts": ("fusion.fc",),
    "shared experts": ("experts.both.fc",),
    "token embedding": ("language.tokens",),
    "attention": ("attention.qkv", "attention.out"),
    "heads": ("mlm_head", "mim_head"),
}
_REST: Final = "patch embedding, positions, LayerNorms"
_FP32, _BF16 = 4, 2


@dataclass(frozen=True)
class SampleShape:
    """The lengths of one sample of a stream."""

    image_length: int
    "1 + N, or 0 without an image."
    text_length: int
    "T, or 0 without a text."
    num_masked_patches: int
    "Patches to predict."
    num_masked_tokens: int
    "Text tokens to predict."

    @property
    def length(self) -> int:
        """Return S."""
        return self.image_length + self.text_length


@dataclass(frozen=True)
class ParallelLayout:
    """How a training step is distributed over workers."""

    num_workers: int = 1
    "Number of workers, one GPU each."
    micro_batch: int = 64
    "Samples in one forward."
    sharded: bool = False
    "Whether weights, gradients and optimizer state are sharded over the workers (FSDP2)."
    precision: Literal["fp32", "bf16"] = "bf16"
    "Floating-point type of matrix products; weights are fp32."
    activation_checkpointing: Recomputing = "none"
    "What the backward computes again instead of keeping it."


def parameters_by_part(config: BEiT3Config) -> dict[str, int]:
    """Return the number of parameters of each part it has, as in section 2.3 of the paper."""
    with torch.device("meta"):
        network = BEiT3(config)
    counts = dict.fromkeys([*_PARTS, _REST], 0)
    for name, parameter in network.named_parameters():
        part = next((p for p, keys in _PARTS.items() if any(key in name for key in keys)), _REST)
        counts[part] += parameter.numel()
    return {part: count for part, count in counts.items() if count}


def sample_shapes(
    config: BEiT3Config,
    *,
    text_length: int = 128,
    caption_length: int = 64,
    image_mask_ratio: float = 0.4,
    text_mask_ratio: float = 0.15,
    pair_text_mask_ratio: float = 0.5,
) -> dict[Stream, SampleShape]:
    """Return the shape of a mean sample of each stream; a pair masks one modality or the other."""
    num_patches = config.num_patches
    num_masked = round(image_mask_ratio * num_patches)
    return {
        "image": SampleShape(1 + num_patches, 0, num_masked, 0),
        "text": SampleShape(0, text_length, 0, round(text_mask_ratio * text_length)),
        "pair": SampleShape(
            1 + num_patches,
            caption_length,
            round(num_masked / 2),
            round(pair_text_mask_ratio * caption_length / 2),
        ),
    }


def forward_flops(config: BEiT3Config, sample: SampleShape) -> int:
    """Return the floating-point operations of one sample's forward, heads included."""
    width, length = config.width, sample.length
    products = length * width * (4 * width + 2 * config.ffn_width)
    attention = 2 * length * length * width
    total = config.depth * (products + attention)
    if sample.image_length:
        total += config.num_patches * width * 3 * config.patch_size**2
    return 2 * (total + width * _num_logits(config, sample))


def _num_logits(config: BEiT3Config, sample: SampleShape) -> int:
    return (
        sample.num_masked_patches * config.image_outputs
        + sample.num_masked_tokens * config.vocab_size
    )


def step_flops(
    config: BEiT3Config,
    batch: Mapping[Stream, SampleShape],
    counts: Mapping[Stream, int],
    activation_checkpointing: Recomputing,
) -> int:
    """Return the floating-point operations of one optimizer step, over all workers.

    ``counts`` are the samples of each stream in the global batch.
    """
    return sum(
        (3 * forward_flops(config, batch[s]) + _again(config, batch[s], activation_checkpointing))
        * counts[s]
        for s in batch
    )


def _again(config: BEiT3Config, sample: SampleShape, recomputing: Recomputing) -> int:
    """Return the floating-point operations that one sample's backward does again, at most."""
    if recomputing != "selective":
        return forward_flops(config, sample) if recomputing == "full" else 0
    again = config.depth * sample.length * config.width**2  # output projection of the attention
    if sample.image_length and sample.text_length:  # fc2 of the first of two experts
        blocks = config.depth - config.fusion_layers
        again += blocks * sample.image_length * config.ffn_width * config.width
    return 2 * again


def activation_bytes(config: BEiT3Config, sample: SampleShape, layout: ParallelLayout) -> int:
    """Return the bytes that one sample's forward through the blocks keeps for the backward.

    A block keeps the inputs of its products and LayerNorms, q, k and v, and the attention's output.
    Under bf16 all of these are bf16; the residual stream is fp32, but it is not kept.
    """
    half = _BF16 if layout.precision == "bf16" else _FP32
    width, ffn = config.width, config.ffn_width
    block = half * (2 * width + 2 * width + 4 * width + 2 * ffn)
    if config.subln:  # one more LayerNorm input of each size
        block += half * (width + ffn)
    statistics = 2 * _FP32 * (4 if config.subln else 2) + _FP32 * config.num_heads
    block = (block + statistics) * sample.length
    if layout.activation_checkpointing == "none":
        return config.depth * block
    kept = width * _FP32
    if layout.activation_checkpointing == "selective":  # q, k, v; the attention; fc1
        kept += half * (3 * width + width + ffn) + _FP32 * config.num_heads
    return config.depth * kept * sample.length + block


def memory_bytes(
    config: BEiT3Config, batch: Mapping[Stream, SampleShape], layout: ParallelLayout
) -> dict[str, int]:
    """Return a worker's memory in bytes by purpose, for the stream that needs the most."""
    parts = parameters_by_part(config)
    num_parameters = sum(parts.values())
    num_shards = layout.num_workers if layout.sharded else 1
    blocks = [n for part, n in parts.items() if "experts" in part or part == "attention"]
    block = sum(blocks) // config.depth
    result = {
        "weights": num_parameters * _FP32 // num_shards,
        "gradients": num_parameters * _FP32 // num_shards,
        "optimizer state": 2 * num_parameters * _FP32 // num_shards,
    }
    if layout.sharded:
        result["two gathered blocks, the embeddings and heads"] = _FP32 * (
            2 * block + parts["token embedding"] + parts["heads"]
        )
    if layout.precision == "bf16":
        held = 2 * block if layout.sharded else num_parameters - parts["token embedding"]
        result["bf16 copies of weights"] = held * _BF16
    result["activations"] = layout.micro_batch * max(
        activation_bytes(config, sample, layout) for sample in batch.values()
    )
    # Logits, their logarithms and both gradients; under bf16 the first and last take 2 bytes.
    per_logit = 4 * _FP32 if layout.precision == "fp32" else 2 * _FP32 + 2 * _BF16
    result["logits"] = layout.micro_batch * max(
        per_logit * _num_logits(config, sample) for sample in batch.values()
    )
    return result
