"""Forward and backward of this network against torchscale: same weights, same batch, same run.

    python benchmarks/train_step.py [--size base] [--batch 8] [--rounds 5] [--smoke]
        [--kernel fused eager]

For each stream (images, texts, pairs), in the released form of the network: seconds of one
forward and backward of this network, of the same with compiled blocks, and of torchscale's. They
alternate; prints the ratio of the medians, the fraction of this machine's measured matrix-product
rate that each reaches, and the ratio of peak memory above what the process held before the step,
each measured in its own process. On a GPU the forward runs in bf16. Two kernels of the
sub-LayerNorm run in turn and give their ratio; ``fused`` is the eager one where there is no GPU.
"""

import argparse
import copy
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from measuring import parse_options, resident_bytes
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from model import BEiT3, BEiT3Config
from model.network.interop import to_official
from model.network.layer_norm import SubLayerNorm
from model.training.batch import MicroBatch, Stream
from model.training.masking import mask_patches, mask_tokens, num_masked_patches
from model.training.objectives import predict
from pipelines.pretrain.foreign_configs import torchscale_arguments

STREAMS: tuple[Stream, ...] = ("image", "text", "pair")
TEXT_LENGTH = {"text": 128, "pair": 64}
TEXT_MASK_RATIO = {"text": 0.15, "pair": 0.5}
KERNELS = ("fused", "eager")
GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="base")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", nargs="+", choices=STREAMS, default=STREAMS)
    parser.add_argument("--kernel", nargs="+", choices=KERNELS, default=KERNELS[:1])
    parser.add_argument("--memory-of", nargs=2, metavar=("WHO", "STREAM"), help="used internally")
    options = parse_options(
        parser, size="tiny", batch=2, rounds=1, streams=["pair"], kernel=KERNELS
    )
    config = BEiT3Config.named(options.size, attention="decoupled", fusion_layers=0, subln=True)
    if options.memory_of:
        who, stream = options.memory_of
        step = contestants(config, {who})[who]
        sys.stdout.write(str(peak_bytes(step, stream, config, options.batch)))
        return
    sys.stdout.write(
        f"{DEVICE.type}, {torch.get_num_threads()} threads, {options.size}, batch {options.batch}\n"
    )
    compiled = set() if options.smoke else {"compiled"}  # compiling takes most of a minute
    runners = contestants(config, {"ours", "torchscale"} | compiled, options.kernel)
    for stream in options.streams:
        compare(stream, config, runners, options)


def compare(
    stream: Stream,
    config: BEiT3Config,
    runners: dict[str, Callable[[MicroBatch], None]],
    options: argparse.Namespace,
) -> None:
    """Run the contestants in turn on one stream; print medians and ratios."""
    batch = micro_batch(stream, config, options.batch).to(DEVICE)
    flops = counted_flops(runners["ours"], batch)
    seconds: dict[str, list[float]] = {who: [] for who in runners}
    fractions: dict[str, list[float]] = {who: [] for who in runners}
    for round_ in range(options.rounds + 1):
        for who, step in runners.items():
            # Measured beside each step, since the speed of a shared machine varies.
            rate = matmul_rate(256) if options.smoke else matmul_rate()
            taken = timed(step, batch)
            if round_:  # the first round warms up
                seconds[who].append(taken)
                fractions[who].append(flops / taken / rate)
    sys.stdout.write(f"{stream:<6}")
    for who, values in seconds.items():
        fraction = statistics.median(fractions[who])
        sys.stdout.write(
            f" {who} {statistics.median(values):.3f} s, {fraction:.0%} of the matmul rate;"
        )
    for who in [name for name in seconds if "/" in name]:
        plain, kernel = who.split("/")
        ratio = statistics.median(
            slow / fast for slow, fast in zip(seconds[who], seconds[plain], strict=True)
        )
        sys.stdout.write(f" {plain} {ratio:.2f}x the speed of its {kernel} kernel;")
    pairs = zip(seconds["torchscale"], seconds["ours"], strict=True)
    speed = statistics.median(theirs / ours for theirs, ours in pairs)
    memory = {who: memory_of(who, stream, options) for who in ("ours", "torchscale")}
    sys.stdout.write(
        f" ours {speed:.2f}x the speed of torchscale; "
        f"memory {memory['ours'] / 1e9:.2f} / {memory['torchscale'] / 1e9:.2f} GB, "
        f"{memory['ours'] / max(memory['torchscale'], 1):.2f}x\n"
    )
    sys.stdout.flush()


class Torchscale(nn.Module):
    """torchscale's encoder with the two prediction heads."""

    def __init__(self, config: BEiT3Config) -> None:
        super().__init__()
        from torchscale.architecture.config import EncoderConfig
        from torchscale.model.BEiT3 import BEiT3 as Reference

        self.beit3 = Reference(EncoderConfig(**torchscale_arguments(config)))
        self.mlm_head = nn.Linear(config.width, config.vocab_size)
        self.mim_head = nn.Linear(config.width, config.num_codes)

    def loss(self, batch: MicroBatch) -> Tensor:
        """Sum of both objectives, at masked positions only."""
        out = self.beit3(
            textual_tokens=batch.text_ids,
            visual_tokens=batch.images,
            text_padding_position=batch.text_padding,
            vision_masked_position=batch.image_mask,
        )
        hidden, split = out["encoder_out"], max(out["multiway_split_position"], 0)
        total = hidden.new_zeros(())
        if batch.masked_text_positions is not None and batch.text_targets is not None:
            words = hidden[:, split:].flatten(0, 1)
            logits = self.mlm_head(words[batch.masked_text_positions])
            total = total + _loss(logits, batch.text_targets.flatten()[batch.masked_text_positions])
        if batch.masked_image_positions is not None and batch.codes is not None:
            patches = hidden[:, 1 : split or None].flatten(0, 1)
            logits = self.mim_head(patches[batch.masked_image_positions])
            total = total + _loss(logits, batch.codes.flatten()[batch.masked_image_positions])
        return total


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), targets, reduction="sum")


def contestants(
    config: BEiT3Config, who: set[str], kernels: Sequence[str] = KERNELS[:1]
) -> dict[str, Callable[[MicroBatch], None]]:
    """Return functions that run a forward and a backward, by name, with equal weights.

    ``ours`` and ``compiled`` run the first of ``kernels``; with the second, a suffix names it.
    """
    torch.manual_seed(0)
    ours = BEiT3(config).to(DEVICE)

    def our_loss(network: Any, batch: MicroBatch) -> Tensor:
        return torch.stack([p.loss_sum for p in predict(network, batch).values()]).sum()

    runners: dict[str, Callable[[MicroBatch], None]] = {}
    if "torchscale" in who:
        theirs = Torchscale(config).to(DEVICE)
        theirs.load_state_dict(to_official(ours.state_dict(), config)[0])
        runners["torchscale"] = lambda batch: _step(theirs, theirs.loss, batch)
    for kernel in kernels:
        suffix = "" if kernel == kernels[0] else f"/{kernel}"
        for name in ("ours", "compiled"):
            if name not in who:
                continue
            network = with_kernel(copy.deepcopy(ours), kernel)
            if name == "compiled":
                for block in network.blocks:
                    block.compile()
            runners[name + suffix] = partial(_step, network, partial(our_loss, network))
    return runners


def with_kernel(network: BEiT3, kernel: str) -> BEiT3:
    """Let the network's sub-LayerNorms run a kernel; return the network."""
    for module in network.modules():
        if isinstance(module, SubLayerNorm):
            module.fused = kernel == "fused"
    return network


def _step(network: nn.Module, loss: Callable[[MicroBatch], Tensor], batch: MicroBatch) -> None:
    network.zero_grad(set_to_none=True)
    with torch.autocast(DEVICE.type, torch.bfloat16, enabled=GPU):
        total = loss(batch)
    total.backward()


def micro_batch(stream: Stream, config: BEiT3Config, size: int) -> MicroBatch:
    """Return random samples of a stream, masked as the pretraining masks them."""
    generator = torch.Generator().manual_seed(0)
    slots = torch.arange(size).numpy()
    batch = MicroBatch(stream)
    if stream != "text":
        side, grid = config.image_size, config.grid
        batch.images = torch.randn(size, 3, side, side, generator=generator)
        count = num_masked_patches(grid * grid, 0.4)
        batch.image_mask = torch.from_numpy(mask_patches(grid, count, 0, 0, slots))
        batch.codes = torch.randint(0, config.num_codes, (size, grid * grid), generator=generator)
    if stream != "image":
        length = TEXT_LENGTH[stream]
        ids = torch.randint(4, config.vocab_size - 9, (size, length), generator=generator)
        maskable = torch.ones_like(ids, dtype=torch.bool).numpy()
        words, mask = mask_tokens(
            ids.numpy(), maskable, TEXT_MASK_RATIO[stream], (4, 64000), 64001, 0, 0, slots
        )
        batch.text_ids, batch.text_mask = torch.from_numpy(words), torch.from_numpy(mask)
        batch.text_targets = ids
        if stream == "pair":
            batch.text_padding = torch.arange(length) >= torch.randint(16, 65, (size, 1))
    return batch


def timed(step: Callable[[MicroBatch], None], batch: MicroBatch) -> float:
    """Return the seconds of one step."""
    _wait()
    start = time.perf_counter()
    step(batch)
    _wait()
    return time.perf_counter() - start


def counted_flops(step: Callable[[MicroBatch], None], batch: MicroBatch) -> int:
    """Return the floating-point operations of one step's matrix products and attention."""
    with FlopCounterMode(display=False) as counter:
        step(batch)
    return counter.get_total_flops()


def matmul_rate(side: int = 8192 if GPU else 3072) -> float:
    """Return the best measured operations per second of a large square matrix product."""
    dtype = torch.bfloat16 if GPU else torch.float32
    a, b = (torch.randn(side, side, device=DEVICE, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(4):
        _wait()
        start = time.perf_counter()
        a @ b
        _wait()
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def memory_of(who: str, stream: str, options: argparse.Namespace) -> int:
    """Return :func:`peak_bytes`, measured in a fresh process."""
    command = [sys.executable, __file__, "--memory-of", who, stream]
    command += ["--batch", str(options.batch), "--size", options.size]
    return int(subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL))


def peak_bytes(
    step: Callable[[MicroBatch], None], stream: Stream, config: BEiT3Config, size: int
) -> int:
    """Return the peak bytes of a step above what the process held before it."""
    batch = micro_batch(stream, config, size).to(DEVICE)
    if GPU:
        before = torch.cuda.memory_allocated()
        step(batch)
        return torch.cuda.max_memory_allocated() - before
    before = resident_bytes()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    step(batch)
    return resident_bytes("VmHWM") - before


def _wait() -> None:
    if GPU:
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
