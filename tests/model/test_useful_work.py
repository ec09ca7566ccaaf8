"""Useful work of a step, against torch's counter on a network that runs each sample alone."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from model import BEiT3, BEiT3Config
from model.training.batch import STREAMS, MicroBatch
from model.training.cost import SampleShape, step_flops
from model.training.objectives import predict
from model.training.useful_work import step_work

CONFIG = BEiT3Config(
    32, 2, 2, 64, image_size=32, patch_size=8, fusion_layers=1, vocab_size=60, num_codes=50,
    max_text_length=32,
)  # fmt: skip
LENGTHS = (3, 8, 8, 5)


def pairs(lengths: tuple[int, ...], width: int) -> MicroBatch:
    """Pairs with captions of these lengths, padded; the first token and patch are predicted."""
    number = len(lengths)
    padding = torch.arange(width) >= torch.tensor(lengths)[:, None]
    first = torch.zeros(number, width, dtype=torch.bool)
    first[:, 0] = True
    patch = torch.zeros(number, CONFIG.num_patches, dtype=torch.bool)
    patch[:, 0] = True
    return MicroBatch(
        "pair",
        images=torch.zeros(number, 3, 32, 32),
        image_mask=patch,
        codes=torch.zeros(number, CONFIG.num_patches, dtype=torch.long),
        text_ids=torch.full((number, width), 4),
        text_targets=torch.full((number, width), 4),
        text_padding=padding if padding.any() else None,
        text_mask=first,
    )


def counted(network: BEiT3, lengths: tuple[int, ...]) -> int:
    """Operations that torch counts for samples that are run one by one, without padding."""
    total = 0
    for length in lengths:
        with (
            FlopCounterMode(display=False) as counter,
            torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        ):
            predict(network, pairs((length,), length))
        total += counter.get_total_flops()
    return total


def test_padding_is_no_useful_work():
    network = BEiT3(CONFIG).eval()
    alone = 3 * counted(network, LENGTHS)
    for width in (8, 16):
        work = step_work(CONFIG, [pairs(LENGTHS, width)], {"pair": 4, "image": 0, "text": 0})
        assert work.flops == alone
        assert (work.num_samples, work.num_tokens) == (4, sum(LENGTHS) + 4 * 16)


def test_batches_without_padding_cost_what_the_account_of_steps_says():
    shapes = {
        "image": SampleShape(17, 0, 6, 0),
        "text": SampleShape(0, 12, 0, 2),
        "pair": SampleShape(17, 8, 1, 1),
    }
    image_mask = torch.arange(16).expand(5, 16) < 6
    text_mask = torch.arange(12).expand(3, 12) < 2
    batches = [
        MicroBatch("image", images=torch.zeros(5, 3, 32, 32), image_mask=image_mask),
        MicroBatch("text", text_ids=torch.zeros(3, 12, dtype=torch.long), text_mask=text_mask),
        pairs((8, 8), 8),
    ]
    counts = {"image": 5, "text": 3, "pair": 2}
    work = step_work(CONFIG, batches, counts)
    assert work.flops == step_flops(CONFIG, shapes, counts, activation_checkpointing="none")


def test_samples_and_tokens_are_those_of_all_workers_however_batches_are_divided():
    counts = dict.fromkeys(STREAMS, 0) | {"pair": 40}
    whole = step_work(CONFIG, [pairs(LENGTHS, 8)], counts)
    halves = step_work(CONFIG, [pairs(LENGTHS[:2], 8), pairs(LENGTHS[2:], 8)], counts)
    assert whole == halves
    assert (whole.num_samples, whole.num_tokens) == (40, 10 * (sum(LENGTHS) + 4 * 16))
