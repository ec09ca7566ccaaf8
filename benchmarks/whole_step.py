"""Samples per second of a whole optimizer step, against the rate of a bare matrix product.

    python benchmarks/whole_step.py [--size base] [--samples 512] [--micro-batch 128] [--smoke]
        [--compile] [--activation-checkpointing full]
        [--released] [--kernel fused eager]

Equal numbers of images, texts and pairs from pinned memory, in bf16 on a GPU: forward, backward,
clipping, AdamW. Prints the ratio of the step's operations per second, counted by
``model.training.cost``, to the rate of a large matrix product measured in the same run; on a GPU
also the peak memory and its ratio to the estimate that ``beit3 inspect model`` prints.
"""

import argparse
import statistics
import sys
import time
from dataclasses import replace
from typing import get_args

import torch
from measuring import parse_options
from train_step import DEVICE, GPU, KERNELS, TEXT_LENGTH, matmul_rate, micro_batch, with_kernel

from model import BEiT3, BEiT3Config
from model.network.config import Recomputing
from model.training.batch import STREAMS
from model.training.compiling import compile_blocks
from model.training.cost import ParallelLayout, memory_bytes, sample_shapes, step_flops
from model.training.objectives import complete_loss_weights
from model.training.optimizer import adamw
from model.training.step import train_step


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="base")
    parser.add_argument("--samples", type=int, default=512, help="per stream and step")
    parser.add_argument("--micro-batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--activation-checkpointing", choices=get_args(Recomputing), default="none")
    parser.add_argument("--released", action="store_true", help="the form with sub-LayerNorm")
    parser.add_argument(
        "--kernel", nargs="+", choices=KERNELS, default=KERNELS[:1], help="of the sub-LayerNorm"
    )
    options = parse_options(
        parser, size="tiny", samples=4, micro_batch=2, steps=3, released=True, kernel=KERNELS
    )
    taken = [measure(options, kernel) for kernel in options.kernel]
    if len(taken) > 1:
        first, second = options.kernel[:2]
        sys.stdout.write(f"{first} {taken[1] / taken[0]:.2f}x the speed of {second}\n")


def measure(options: argparse.Namespace, kernel: str) -> float:
    """Measure a network whose sub-LayerNorms run a kernel; print, return seconds per step."""
    config = BEiT3Config.named(options.size)
    if options.released:
        config = replace(config, attention="decoupled", fusion_layers=0, subln=True)
    torch.manual_seed(0)
    if GPU:
        torch.cuda.reset_peak_memory_stats()
    with DEVICE:
        network = with_kernel(BEiT3(config), kernel)
    network.activation_checkpointing = options.activation_checkpointing
    if options.compile:
        compile_blocks(network)
    optimizer = adamw(network, weight_decay=0.05, betas=(0.9, 0.98), eps=1e-6)
    batches = [
        micro_batch(stream, config, options.micro_batch)
        for stream in STREAMS
        for _ in range(options.samples // options.micro_batch)
    ]
    if GPU:
        batches = [batch.pinned() for batch in batches]
    seconds, losses = [], []
    for _ in range(options.steps):
        start = time.perf_counter()
        result = train_step(
            network,
            optimizer,
            batches,
            lr=1e-4,
            loss_weights=complete_loss_weights({}),
            max_grad_norm=3.0,
            autocast=torch.autocast(DEVICE.type, torch.bfloat16, enabled=GPU),
        )
        seconds.append(time.perf_counter() - start)
        losses.append(sum(result.loss.values()))
    taken = statistics.median(seconds[2:])
    per_sample = sample_shapes(
        config, text_length=TEXT_LENGTH["text"], caption_length=TEXT_LENGTH["pair"]
    )
    counts = dict.fromkeys(STREAMS, options.samples)
    rate = matmul_rate(256) if options.smoke else matmul_rate()
    flops = step_flops(config, per_sample, counts, activation_checkpointing="none")
    plan = ParallelLayout(
        micro_batch=options.micro_batch, activation_checkpointing=options.activation_checkpointing
    )
    estimate = sum(memory_bytes(config, per_sample, plan).values()) / 1e9
    sys.stdout.write(
        f"{options.size}, released form {options.released}, {kernel} kernel, "
        f"{options.samples} of each stream, micro-batch {options.micro_batch}, "
        f"compile {options.compile}, activation checkpointing "
        f"{options.activation_checkpointing}: first step {seconds[0]:.1f} s, then {taken:.3f} s, "
        f"{3 * options.samples / taken:.0f} samples/s, {flops / taken / rate:.2f}x of the "
        f"matmul rate, loss {losses[0]:.2f} -> {losses[-1]:.2f}\n"
    )
    if GPU:
        memory = torch.cuda.max_memory_allocated() / 1e9
        sys.stdout.write(
            f"peak memory {memory:.1f} GB, {memory / estimate:.2f}x of the estimated "
            f"{estimate:.1f} GB\n"
        )
    return taken


if __name__ == "__main__":
    main()
