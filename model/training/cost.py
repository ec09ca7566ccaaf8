"""What a network and a training step cost: parameters, operations, memory. Nothing is allocated.

Operations are those of matrix products and attention; a backward takes twice a forward. Memory is
what eager execution keeps for the backward, without the allocator's own share: a compiled network
keeps less.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import torch

from model.network.beit3 import BEiT3
from model.network.config import BEiT3Config
from model.training.batch import Stream

_PARTS: Final = {
    "vision experts": ("experts.vision.fc",),
    "language experts": ("experts.language.fc",),
    "vision-language experts": ("fusion.fc",),
    "word embeddings": ("language.words",),
    "attention": ("attention.qkv", "attention.out"),
    "heads": ("mlm_head", "mim_head"),
}
_REST: Final = "patch embedding, positions, LayerNorms"
_FP32, _BF16 = 4, 2


@dataclass(frozen=True)
class Samples:
    """One sample of a stream, as the network sees it."""

    image_length: int
    "1 + N, or 0."
    text_length: int
    "T, or 0."
    num_codes: int
    "Patches to predict."
    num_words: int
    "Tokens to predict."

    @property
    def length(self) -> int:
        """S."""
        return self.image_length + self.text_length


@dataclass(frozen=True)
class Plan:
    """How a step is laid over workers."""

    num_workers: int = 1
    micro_batch: int = 64
    sharded: bool = False
    "Weights, gradients and optimizer state lie in equal shares on all workers (FSDP2)."
    precision: Literal["fp32", "bf16"] = "bf16"
    recompute: bool = False
    "Blocks compute their activations again in the backward."


def parameters_by_part(config: BEiT3Config) -> dict[str, int]:
    """Return the number of parameters of each part, in the division of the paper's table."""
    with torch.device("meta"):
        network = BEiT3(config)
    counts = dict.fromkeys([*_PARTS, _REST], 0)
    for name, parameter in network.named_parameters():
        part = next((p for p, words in _PARTS.items() if any(w in name for w in words)), _REST)
        counts[part] += parameter.numel()
    return counts


def samples(
    config: BEiT3Config,
    *,
    text_length: int = 128,
    caption_length: int = 64,
    image_share: float = 0.4,
    text_share: float = 0.15,
    caption_share: float = 0.5,
) -> dict[Stream, Samples]:
    """Return a sample of each stream; half of the pairs hide patches and half hide words."""
    num_patches = config.num_patches
    codes = round(image_share * num_patches)
    return {
        "image": Samples(1 + num_patches, 0, codes, 0),
        "text": Samples(0, text_length, 0, round(text_share * text_length)),
        "pair": Samples(
            1 + num_patches,
            caption_length,
            round(codes / 2),
            round(caption_share * caption_length / 2),
        ),
    }


def forward_flops(config: BEiT3Config, sample: Samples) -> int:
    """Return the floating-point operations of one sample's forward, heads included."""
    width, length = config.width, sample.length
    products = length * width * (4 * width + 2 * config.ffn_width)
    attention = 2 * length * length * width
    total = config.depth * (products + attention)
    if sample.image_length:
        total += config.num_patches * width * 3 * config.patch_size**2
    total += width * (sample.num_codes * config.codes + sample.num_words * config.vocabulary)
    return 2 * total


def step_flops(
    config: BEiT3Config,
    batch: Mapping[Stream, Samples],
    counts: Mapping[Stream, int],
    recompute: bool,
) -> int:
    """Return the operations of one optimizer step over all workers."""
    passes = 4 if recompute else 3
    return passes * sum(forward_flops(config, batch[s]) * counts[s] for s in batch)


def activation_bytes(config: BEiT3Config, sample: Samples, plan: Plan) -> int:
    """Return what one sample's forward through the blocks keeps for the backward.

    A block keeps the inputs of its products and LayerNorms, q, k and v, and the attention's output.
    Under bf16 all of these are bf16; the residual stream is fp32, but nothing keeps it.
    """
    half = _BF16 if plan.precision == "bf16" else _FP32
    width, ffn = config.width, config.ffn_width
    block = half * (2 * width + 2 * width + 4 * width + 2 * ffn)
    if config.subln:  # one more LayerNorm input of each size
        block += half * (width + ffn)
    statistics = 2 * _FP32 * (4 if config.subln else 2) + _FP32 * config.heads
    block = (block + statistics) * sample.length
    kept = width * _FP32 * sample.length if plan.recompute else block
    return config.depth * kept + (block if plan.recompute else 0)


def memory_bytes(
    config: BEiT3Config, batch: Mapping[Stream, Samples], plan: Plan
) -> dict[str, int]:
    """Return a worker's memory by purpose, at the largest micro-batch of the streams."""
    parts = parameters_by_part(config)
    num = sum(parts.values())
    shares = plan.num_workers if plan.sharded else 1
    block = sum(parts[p] for p in _PARTS if "experts" in p or p == "attention") // config.depth
    result = {
        "weights": num * _FP32 // shares,
        "gradients": num * _FP32 // shares,
        "optimizer state": 2 * num * _FP32 // shares,
    }
    if plan.sharded:
        result["two gathered blocks, the embeddings and heads"] = _FP32 * (
            2 * block + parts["word embeddings"] + parts["heads"]
        )
    if plan.precision == "bf16":
        held = 2 * block if plan.sharded else num - parts["word embeddings"]
        result["bf16 copies of weights"] = held * _BF16
    result["activations"] = plan.micro_batch * max(
        activation_bytes(config, sample, plan) for sample in batch.values()
    )
    # Logits, their logarithms and both gradients; under bf16 the first and last are halves.
    per_logit = 4 * _FP32 if plan.precision == "fp32" else 2 * _FP32 + 2 * _BF16
    result["logits"] = plan.micro_batch * max(
        per_logit * (s.num_codes * config.codes + s.num_words * config.vocabulary)
        for s in batch.values()
    )
    return result
