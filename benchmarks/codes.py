"""Cost of a visit to an image: stored codes against codes computed within the step.

    python benchmarks/codes.py [--size base] [--images 32] [--rounds 3] [--smoke]

``train.codes: stored`` cuts a stored view and reads its codes; ``online`` jitters the image, cuts a
new view at two sizes and encodes one of them. The step is forward and backward of the network over
these images. Contestants alternate; prints the seconds of each part per image, the ratio of a whole
visit, and how many visits of an image pay for storing its views.
"""

import argparse
import sys

import numpy as np
import pyarrow as pa
import torch
from measuring import alternating, parse_options
from train_step import DEVICE, GPU, micro_batch

from dataprep.images import encode_jpeg
from dataprep.miniweb.drawing import draw
from dataprep.miniweb.grammar import random_scene
from dataprep.views import random_cut
from model import BEiT3, BEiT3Config
from model.training.objectives import predict
from pipelines.pretrain.crops import Crops, NewViewCutter, NewViews, StoredViewCutter
from pipelines.tokens.image_tokens import VIEW_NUMBERS
from tokenizer.vqkd import VQKD, VQKDConfig, to_input

NUM_VIEWS = 16
COLOR_JITTER = 0.4
MIN_CROP_SCALE = 0.2


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="base")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    options = parse_options(parser, size="tiny", images=4, rounds=1)
    config = BEiT3Config.named(options.size)
    small = {"width": 64, "depth": 1, "num_heads": 1, "decoder_depth": 1} if options.smoke else {}
    tokenizer = VQKD(VQKDConfig(image_size=config.grid * 16, **small)).to(DEVICE).eval()
    rows = images(options.images, config.num_patches)
    slots = np.arange(options.images)
    stored = StoredViewCutter(config, COLOR_JITTER, 1, 2)
    views = NewViews(MIN_CROP_SCALE, True, tokenizer.config.image_size)
    new = NewViewCutter(config, COLOR_JITTER, 1, 2, views)
    crops = new(rows, 0, slots)
    network = BEiT3(config).to(DEVICE)
    seconds = alternating(
        options.rounds,
        lambda: stored(rows, 0, slots),
        lambda: new(rows, 0, slots),
        lambda: encoded(tokenizer, crops),
        lambda: step(network, config, options.images),
    )
    cut, cut_new, encode, train = (1000 * taken / options.images for taken in seconds)
    sys.stdout.write(
        f"{DEVICE.type}, {options.size}, ms per image: cut a stored view {cut:.1f}, jitter and cut "
        f"a new one {cut_new:.1f}, encode it {encode:.1f}, forward and backward {train:.1f}\n"
        f"a visit with online codes costs {(cut_new + encode + train) / (cut + train):.2f}x of one "
        f"with stored codes; storing {NUM_VIEWS} views pays after "
        f"{NUM_VIEWS * (cut + encode) / max(cut_new + encode - cut, 1e-9):.0f} visits of an image\n"
    )


def images(number: int, num_patches: int, num_views: int = NUM_VIEWS) -> pa.Table:
    """Return rows of ``image_tokens`` with random codes."""
    rng = np.random.default_rng(0)
    jpegs, views = [], []
    for i in range(number):
        pixels = draw(random_scene(rng), 340, 256, rng)
        jpegs.append(encode_jpeg(pixels, 92))
        cuts = [random_cut(pixels, MIN_CROP_SCALE, 0, str(i), k, 32)[0] for k in range(num_views)]
        views.append(np.array(cuts, np.uint16).reshape(-1))
    codes = rng.integers(0, 8192, (number, num_views * num_patches), np.uint16)
    return pa.table({
        "sample_id": [f"p/{i}" for i in range(number)],
        "jpeg": jpegs,
        "views": fixed_lists(np.stack(views), num_views * VIEW_NUMBERS),
        "codes": fixed_lists(codes, num_views * num_patches),
    })  # fmt: skip


def fixed_lists(values: np.ndarray, size: int) -> pa.Array:
    """(rows, size) → one list per row."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), size)


def encoded(tokenizer: VQKD, crops: Crops) -> None:
    """Encode crops and wait for the result."""
    tokenizer.encode(to_input(crops.for_tokenizer).to(DEVICE)).cpu()


def step(network: BEiT3, config: BEiT3Config, number: int) -> None:
    """Run forward and backward over a micro-batch of images."""
    batch = micro_batch("image", config, number).to(DEVICE)
    with torch.autocast(DEVICE.type, torch.bfloat16, enabled=GPU):
        loss = sum(made.loss_sum for made in predict(network, batch).values())
    loss.backward()
    network.zero_grad()
    if GPU:
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
