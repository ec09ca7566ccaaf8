"""Captions per second: with the cache, without it, and of BLIP in transformers; in one run.

    python benchmarks/generate.py [--size base] [--images 4] [--beams 3] [--tokens 16] [--rounds 3]
        [--smoke]

Contestants are this project's captioning in the released form of the network, the same without a
cache, and transformers' BLIP with a decoder and an image encoder of the same width and depth, its
own vocabulary, and images of the same size. All have random weights, the same number of beams, and
generate ``tokens`` tokens without ending earlier. They alternate; prints captions per second and
the median over the rounds of each ratio. On a GPU all run in bf16.
"""

import argparse
import statistics
import sys
from collections.abc import Callable

import torch
from measuring import parse_options, timed
from torch import Tensor

from model import BEiT3, BEiT3Config
from model.finetuning.generation import Decoding, generate
from model.finetuning.task_networks import EOS, ForCaptioning

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
UNUSED_ROWS = 8
"Rows of the token embedding after [MASK]."


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="base")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--beams", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    options = parse_options(parser, size="tiny", images=2, tokens=4, rounds=1)
    config = BEiT3Config.named(options.size, attention="decoupled", fusion_layers=0, subln=True)
    torch.manual_seed(0)
    images = torch.randn(options.images, 3, config.image_size, config.image_size, device=DEVICE)
    network = captioner(config)
    contestants = {
        "cached": ours(network, images, options, cached=True),
        "not cached": ours(network, images, options, cached=False),
        "BLIP": blip(config, images, options),
    }
    rounds = [
        {who: timed(work) for who, work in contestants.items()}
        for _ in range(options.rounds + 1)  # the first one warms up
    ][1:]
    sys.stdout.write(
        f"{DEVICE.type}, {torch.get_num_threads()} threads, {options.size}, "
        f"{options.images} images, {options.beams} beams, {options.tokens} tokens\n"
    )
    for who in contestants:
        seconds = statistics.median(each[who] for each in rounds)
        sys.stdout.write(f"{who}: {options.images / seconds:.2f} captions/s")
        if who != "cached":
            ratio = statistics.median(each[who] / each["cached"] for each in rounds)
            sys.stdout.write(f"; the cached search is {ratio:.2f}x as fast")
        sys.stdout.write("\n")


def captioner(config: BEiT3Config) -> ForCaptioning:
    """Return a network whose captions do not end."""
    network = ForCaptioning(BEiT3(config), config.vocab_size - UNUSED_ROWS - 1).to(DEVICE).eval()
    with torch.no_grad():
        network.mlm_head.bias[EOS] = -1e4
    return network


def ours(
    network: ForCaptioning, images: Tensor, options: argparse.Namespace, *, cached: bool
) -> Callable[[], None]:
    """Return the search of this project."""
    decoding = Decoding(options.beams, max_length=options.tokens + 1, cached=cached)

    def run() -> None:
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=GPU):
            found = generate(network, images, decoding)
        if any(len(captions[0].ids) != options.tokens - 1 for captions in found):
            raise RuntimeError("a caption has another length")

    return run


def blip(config: BEiT3Config, images: Tensor, options: argparse.Namespace) -> Callable[[], None]:
    """Return the search of transformers' BLIP with the same sizes."""
    from transformers import BlipConfig, BlipForConditionalGeneration

    sizes = {
        "hidden_size": config.width,
        "intermediate_size": config.ffn_width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
    }
    network = BlipForConditionalGeneration(
        BlipConfig(
            text_config={**sizes, "encoder_hidden_size": config.width},
            vision_config={
                **sizes, "image_size": config.image_size, "patch_size": config.patch_size
            },
        )
    ).to(DEVICE).eval()  # fmt: skip
    lengths = {"min_new_tokens": options.tokens, "max_new_tokens": options.tokens}

    def run() -> None:
        with torch.no_grad(), torch.autocast(DEVICE.type, torch.bfloat16, enabled=GPU):
            network.generate(pixel_values=images, num_beams=options.beams, **lengths)

    return run


if __name__ == "__main__":
    main()
