"""Detection against torchvision's Mask R-CNN with a plain ViT behind the same pyramid; in one run.

    python benchmarks/detect.py [--size base] [--image-size 1024] [--batch 1] [--objects 8]
        [--proposals 1000] [--trained 512] [--rounds 3] [--smoke]

Contestants are this project's detector (windowed attention, a cascade of three convolutional box
heads, a mask head) and ``torchvision.models.detection.MaskRCNN`` on torchvision's own
``VisionTransformer`` of the same width and depth, whose last map goes through this project's
pyramid; its attention covers the whole image in every block, and it has one box head. Both have
random weights and yield as many detections as an image may have, with masks in the image. Prints
images per second of inference and of a training step, and the peak memory of a training step in a
process of its own. fp32.
"""

import argparse
import statistics
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable

import torch
from measuring import parse_options, resident_bytes, timed
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.vision_transformer import VisionTransformer
from torchvision.ops import MultiScaleRoIAlign

from model import BEiT3, BEiT3Config
from model.finetuning.detection.masks import pasted
from model.finetuning.detection.network import ForDetection
from model.finetuning.detection.pyramid import STRIDE_MULTIPLE, SimpleFeaturePyramid, strides
from model.finetuning.detection.settings import Choice, DetectorSizes
from model.finetuning.detection.targets import Objects, Targets

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
NUM_CLASSES = 80
MOST = 100
"Detections of an image."
Works = tuple[Callable[[], None], Callable[[], None]]
"Inference and a training step on a batch."


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="base")
    parser.add_argument("--image-size", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--objects", type=int, default=8)
    parser.add_argument("--proposals", type=int, default=1000, help="boxes that are scored")
    parser.add_argument("--trained", type=int, default=512, help="boxes that are trained on")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-of", choices=CONTESTANTS, help="measure one alone")
    options = parse_options(parser, size="tiny", image_size=64, proposals=50, trained=16, rounds=1)
    if options.memory_of:
        sys.stdout.write(f"{peak_bytes(options)}\n")
        return
    works = {who: make(options) for who, make in CONTESTANTS.items()}
    sys.stdout.write(
        f"{DEVICE.type}, {torch.get_num_threads()} threads, {options.size}, batch {options.batch}, "
        f"{options.image_size} pixels\n"
    )
    for number, what in enumerate(("inference", "training step")):
        rounds = [
            {who: timed(some[number]) for who, some in works.items()}
            for _ in range(options.rounds + 1)  # the first one warms up
        ][1:]
        for who in works:
            seconds = statistics.median(each[who] for each in rounds)
            sys.stdout.write(f"{what}, {who}: {options.batch / seconds:.2f} images/s\n")
        ratio = statistics.median(each["torchvision"] / each["ours"] for each in rounds)
        sys.stdout.write(f"{what}: ours is {ratio:.2f}x as fast\n")
    for who in works:
        done = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--memory-of", who],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        sys.stdout.write(
            f"peak memory of a training step, {who}: {int(done.stdout) / 1e9:.2f} GB\n"
        )


def peak_bytes(options: argparse.Namespace) -> int:
    """Return the peak memory of two training steps of one contestant, on a GPU of that alone."""
    _, step = CONTESTANTS[options.memory_of](options)
    step()
    step()
    return torch.cuda.max_memory_allocated() if GPU else resident_bytes("VmHWM")


def drawn(options: argparse.Namespace) -> tuple[Tensor, Targets]:
    """Return images, and objects of random sizes with their masks."""
    torch.manual_seed(0)
    batch, number, size = options.batch, options.objects, options.image_size
    images = torch.randn(batch, 3, size, size, device=DEVICE)
    near = torch.rand(batch * number, 2) * 0.6 * size
    boxes = torch.cat([near, near + (0.1 + 0.3 * torch.rand(batch * number, 2)) * size], dim=1)
    masks = torch.zeros(len(boxes), size, size, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = True
    classes = torch.randint(NUM_CLASSES, (len(boxes),))
    objects = Objects(boxes, classes, masks, torch.ones(len(boxes), dtype=torch.bool))
    return images, Targets(objects, (number,) * batch).each(lambda tensor: tensor.to(DEVICE))


def ours(options: argparse.Namespace) -> Works:
    """Return the work of this project's detector."""
    images, targets = drawn(options)
    config = BEiT3Config.named(options.size, image_size=options.image_size)
    sizes = DetectorSizes(num_proposals=options.proposals, num_trained=options.trained)
    network = ForDetection(BEiT3(config), NUM_CLASSES, sizes).to(DEVICE)
    size, choice = tuple(images.shape[2:]), Choice(min_score=0.0, most=MOST)

    def detect() -> None:
        network.eval()
        for found in network.detect(images, [size] * len(images), choice):
            pasted(found.masks, found.boxes, *size).cpu()

    def step() -> None:
        network.train()
        network.zero_grad()
        losses = network.losses(images, targets, range(len(images)))
        torch.stack([loss.mean() for loss in losses.values()]).sum().backward()
        _wait()

    return detect, step


def torchvision(options: argparse.Namespace) -> Works:
    """Return the work of torchvision's detector."""
    images, targets = drawn(options)
    config = BEiT3Config.named(options.size, image_size=options.image_size)
    network = mask_rcnn(config, options).to(DEVICE)
    wanted = [
        {"boxes": some.boxes, "labels": some.classes + 1, "masks": some.masks.to(torch.uint8)}
        for some in targets.of_images()
    ]

    def detect() -> None:
        network.eval()
        with torch.no_grad():
            for found in network(list(images)):
                found["masks"].cpu()

    def step() -> None:
        network.train()
        network.zero_grad()
        losses = network(list(images), wanted)
        torch.stack(list(losses.values())).sum().backward()
        _wait()

    return detect, step


class PlainBackbone(nn.Module):
    """torchvision's ViT with this project's pyramid on its last map."""

    def __init__(self, config: BEiT3Config, channels: int) -> None:
        super().__init__()
        self.out_channels = channels
        self.vit = VisionTransformer(
            config.image_size, config.patch_size, config.depth, config.num_heads, config.width,
            config.ffn_width,
        )  # fmt: skip
        self.pyramid = SimpleFeaturePyramid(config.width, channels)

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Return the maps of the pyramid, finest first."""
        grid = images.shape[2] // self.vit.patch_size, images.shape[3] // self.vit.patch_size
        patches = self.vit._process_input(images)
        token = self.vit.class_token.expand(len(images), -1, -1)
        hidden = self.vit.encoder(torch.cat([token, patches], dim=1))[:, 1:]
        maps = self.pyramid(hidden.transpose(1, 2).unflatten(2, grid))
        return OrderedDict((str(level), map_) for level, map_ in enumerate(maps))


def mask_rcnn(config: BEiT3Config, options: argparse.Namespace) -> MaskRCNN:
    """Return torchvision's network; its images are neither resized nor normalized."""
    sides = strides(config.patch_size)
    pools = ["0", "1", "2", "3"]
    return MaskRCNN(
        PlainBackbone(config, DetectorSizes().channels),
        num_classes=NUM_CLASSES + 1,
        min_size=config.image_size,
        max_size=config.image_size,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        size_divisible=STRIDE_MULTIPLE * config.patch_size,
        rpn_anchor_generator=AnchorGenerator(
            tuple((8 * side,) for side in sides), ((0.5, 1.0, 2.0),) * len(sides)
        ),
        box_roi_pool=MultiScaleRoIAlign(pools, output_size=7, sampling_ratio=2),
        mask_roi_pool=MultiScaleRoIAlign(pools, output_size=14, sampling_ratio=2),
        rpn_pre_nms_top_n_train=2 * options.proposals,
        rpn_pre_nms_top_n_test=options.proposals,
        rpn_post_nms_top_n_train=options.proposals,
        rpn_post_nms_top_n_test=options.proposals,
        box_batch_size_per_image=options.trained,
        box_score_thresh=0.0,
        box_detections_per_img=MOST,
    )


def _wait() -> None:
    if GPU:
        torch.cuda.synchronize()


CONTESTANTS = {"ours": ours, "torchvision": torchvision}


if __name__ == "__main__":
    main()
