"""Segmentation against transformers' Mask2Former and UperNet; all in one run.

    python benchmarks/segment.py [--head mask2former pyramid] [--size base] [--image-size 512]
        [--batch 2] [--width 1024] [--queries 200] [--layers 9] [--points 12544] [--rounds 3]
        [--smoke]

With the head ``mask2former``, this project's ViT-Adapter and Mask2Former are compared with
``Mask2FormerForUniversalSegmentation`` with decoders of the same sizes, behind two backbones of
transformers: ``BEiT``, a plain ViT as wide and as deep whose maps are resized by convolutions, and
``Swin``, the usual one, in the form nearest in parameters. The head ``pyramid`` is compared with
``UperNetForSemanticSegmentation`` with as many channels behind the same BEiT. All attend to the
whole image but Swin; all have random weights.

Prints images per second of inference, from normalized pixels to the class of each pixel, and of a
training step (forward and backward), and the peak memory of a training step in a process of its
own. fp32.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from measuring import alternating, parse_options, resident_bytes
from torch import Tensor, nn
from transformers import (
    BeitConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    SwinConfig,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)

from model import BEiT3, BEiT3Config
from model.finetuning.segmentation.mask2former import config_of
from model.finetuning.segmentation.network import ForSegmentation
from model.finetuning.segmentation.settings import IGNORED, Head, MaskSizes, SegmenterSizes

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
NUM_CLASSES = 150
NUM_IN_IMAGE = 8
"Classes of an image."
OURS = "ours"
SWIN = {
    "small": SwinConfig(embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
    "base": SwinConfig(
        embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32), window_size=12
    ),
    "large": SwinConfig(
        embed_dim=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48), window_size=12
    ),
}
"Swin-T, -B and -L; the first and the last have a third more and fewer parameters than ours."
Works = tuple[Callable[[], object], Callable[[], object], int]
"Inference and a training step on a batch, and the number of parameters."


def main() -> None:
    """Measure and print."""
    default = MaskSizes()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--head", nargs="+", choices=CONTESTANTS, default=[*CONTESTANTS])
    parser.add_argument("--size", default="base", choices=SWIN)
    parser.add_argument("--image-size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=2, help="UperNet cannot train on one")
    parser.add_argument("--width", type=int, default=default.width, help="of both decoders")
    parser.add_argument("--queries", type=int, default=default.num_queries)
    parser.add_argument("--layers", type=int, default=default.query_layers, help="of the queries")
    parser.add_argument("--points", type=int, default=default.num_points)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-of", help="measure one alone")
    options = parse_options(
        parser, size="small", image_size=64, width=32, queries=10, layers=2, points=64, rounds=1
    )
    if options.memory_of:
        sys.stdout.write(
            f"{peak_bytes(CONTESTANTS[options.head[0]][options.memory_of](options))}\n"
        )
        return
    sys.stdout.write(
        f"{DEVICE.type}, {torch.get_num_threads()} threads, {options.size}, batch {options.batch}, "
        f"{options.image_size} pixels\n"
    )
    for head in options.head:
        compare(head, options)


def compare(head: str, options: argparse.Namespace) -> None:
    """Measure the contestants of one head."""
    works = {who: make(options) for who, make in CONTESTANTS[head].items()}
    peers = [who for who in works if who != OURS]
    for who, (_, _, number) in works.items():
        sys.stdout.write(f"{head}, {who}: {number / 1e6:.1f} million parameters\n")
    for number, what in enumerate(("inference", "training step")):
        found = alternating(options.rounds, *(some[number] for some in works.values()))
        seconds = dict(zip(works, found, strict=True))
        for who in works:
            each = options.batch / seconds[who]
            sys.stdout.write(f"{head}, {what}, {who}: {each:.3f} images/s\n")
        for who in peers:
            ratio = seconds[who] / seconds[OURS]
            sys.stdout.write(f"{head}, {what}: ours is {ratio:.2f}x as fast as {who}\n")
    del works
    peaks = {who: measured_alone(head, who) for who in CONTESTANTS[head]}
    for who, peak in peaks.items():
        sys.stdout.write(f"{head}, peak memory of a training step, {who}: {peak / 1e9:.2f} GB\n")
    for who in peers:
        ratio = peaks[who] / peaks[OURS]
        sys.stdout.write(f"{head}, peak memory: {who} takes {ratio:.2f}x that of ours\n")


def measured_alone(head: str, who: str) -> int:
    """Return the peak memory of one contestant in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--head", head, "--memory-of", who]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def peak_bytes(work: Works) -> int:
    """Return the peak memory of two training steps, on a GPU of that alone."""
    work[1]()
    work[1]()
    return torch.cuda.max_memory_allocated() if GPU else resident_bytes("VmHWM")


def drawn(options: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Return images (B, 3, S, S) and their labels (B, S, S): columns of some classes, and none."""
    torch.manual_seed(0)
    batch, size = options.batch, options.image_size
    images = torch.randn(batch, 3, size, size, device=DEVICE)
    classes = torch.stack([torch.randperm(NUM_CLASSES)[:NUM_IN_IMAGE] for _ in range(batch)])
    labels = classes[:, torch.arange(size) * NUM_IN_IMAGE // size]
    labels = labels[:, None].repeat(1, size, 1)
    labels[:, : size // 16] = IGNORED
    return images, labels.to(DEVICE)


def mask_sizes(options: argparse.Namespace) -> MaskSizes:
    """Return the sizes of both Mask2Formers; heads of 32 channels, as ViT-Adapter's."""
    return MaskSizes(
        width=options.width,
        num_heads=options.width // 32,
        query_layers=options.layers,
        pixel_hidden=4 * options.width,
        query_hidden=4 * options.width,
        num_queries=options.queries,
        num_points=options.points,
    )


def ours(head: Head, options: argparse.Namespace) -> Works:
    """Return the work of this project's network."""
    images, labels = drawn(options)
    config = BEiT3Config.named(options.size, image_size=options.image_size)
    sizes = SegmenterSizes(head, masks=mask_sizes(options))
    network = ForSegmentation(BEiT3(config), NUM_CLASSES, sizes).to(DEVICE)

    def loss() -> Tensor:
        parts = network.losses(images, labels, range(len(images)))
        return torch.stack([part.mean() for part in parts.values()]).sum()

    return works_of(network, lambda: network.scores(images).argmax(dim=1), loss)


def beit(options: argparse.Namespace) -> BeitConfig:
    """Return transformers' plain ViT of the same width and depth, with maps of four scales."""
    config = BEiT3Config.named(options.size, image_size=options.image_size)
    return BeitConfig(
        hidden_size=config.width,
        num_hidden_layers=config.depth,
        num_attention_heads=config.num_heads,
        intermediate_size=config.ffn_width,
        image_size=config.image_size,
        patch_size=config.patch_size,
        use_absolute_position_embeddings=True,
        drop_path_rate=0.0,
        out_features=[f"stage{(i + 1) * config.depth // 4}" for i in range(4)],
        add_fpn=True,
    )


def swin(options: argparse.Namespace) -> SwinConfig:
    """Return transformers' hierarchical encoder."""
    config = SWIN[options.size]
    config.drop_path_rate = 0.0
    config.image_size = options.image_size
    config.set_output_features_output_indices([f"stage{i + 1}" for i in range(4)], None)
    return config


def mask2former(
    backbone: Callable[[argparse.Namespace], BeitConfig | SwinConfig], options: argparse.Namespace
) -> Works:
    """Return the work of transformers' Mask2Former."""
    images, labels = drawn(options)
    config = config_of(NUM_CLASSES, mask_sizes(options))
    config.backbone_config = backbone(options)
    network = Mask2FormerForUniversalSegmentation(config).to(DEVICE)
    processor = Mask2FormerImageProcessor()
    sizes = [(options.image_size,) * 2] * len(images)
    classes = [of_image.unique()[:-1] for of_image in labels]  # IGNORED is the largest
    masks = [
        (of_image == some[:, None, None]).float()
        for of_image, some in zip(labels, classes, strict=True)
    ]

    def maps() -> Any:
        return processor.post_process_semantic_segmentation(network(images), sizes)

    def loss() -> Tensor:
        found: Tensor = network(images, mask_labels=masks, class_labels=classes).loss
        return found.sum()

    return works_of(network, maps, loss)


def upernet(options: argparse.Namespace) -> Works:
    """Return the work of transformers' UperNet, without its auxiliary head."""
    images, labels = drawn(options)
    config = UperNetConfig(
        backbone_config=beit(options),
        hidden_size=SegmenterSizes().channels,
        use_auxiliary_head=False,
        num_labels=NUM_CLASSES,
        loss_ignore_index=IGNORED,
    )
    network = UperNetForSemanticSegmentation(config).to(DEVICE)

    def loss() -> Tensor:
        found: Tensor = network(images, labels=labels).loss
        return found

    return works_of(network, lambda: network(images).logits.argmax(dim=1), loss)


def works_of(network: nn.Module, infer: Callable[[], Any], loss: Callable[[], Tensor]) -> Works:
    """Return inference, a training step, and the number of parameters of a network."""

    @torch.no_grad()
    def inference() -> None:
        network.eval()
        for of_image in infer():
            of_image.cpu()

    def step() -> None:
        network.train()
        network.zero_grad()
        loss().backward()
        if GPU:
            torch.cuda.synchronize()

    return inference, step, sum(parameter.numel() for parameter in network.parameters())


CONTESTANTS: dict[str, dict[str, Callable[[argparse.Namespace], Works]]] = {
    "mask2former": {
        OURS: partial(ours, "mask2former"),
        "BEiT": partial(mask2former, beit),
        "Swin": partial(mask2former, swin),
    },
    "pyramid": {OURS: partial(ours, "pyramid"), "UperNet": upernet},
}


if __name__ == "__main__":
    main()
