"""Captions: the authors' decoding on torchscale, brute force, and what must not matter."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from model import BEiT3, BEiT3Config
from model.finetuning.generation import Decoding, Generated, generate
from model.finetuning.released import to_released
from model.finetuning.task_networks import ForCaptioning
from tests.model.finetuning.official_decoding import OfficialCaptioner
from tests.model.networks import RELEASED, random_images

MASK = 51
"With pieces up to 50; rows 52 to 59 of the embedding are unused."
LARGER = replace(RELEASED, width=64, depth=4, ffn_width=128, image_size=48)


def captioner(seed: int, config: BEiT3Config = RELEASED, mask_id: int = MASK) -> ForCaptioning:
    """A network whose next token depends on the image and on all tokens before it."""
    torch.manual_seed(seed)
    made = ForCaptioning(BEiT3(config), mask_id).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        made.mlm_head.weight.mul_(4)
        made.mlm_head.bias[2] += 1.5 * (seed % 3)
        made.network.language.positions.mul_(40)
        made.network.language.tokens.weight.mul_(5)
    return made


def images_of(config: BEiT3Config, number: int) -> Tensor:
    return 3 * random_images(config, number)


def same(mine: Generated, other: Generated, tolerance: float = 1e-4) -> bool:
    alike = mine.ids == other.ids and mine.ended == other.ended
    return alike and abs(mine.score - other.score) < tolerance


@pytest.mark.parametrize("cached", [True, False], ids=["cached", "not cached"])
@pytest.mark.parametrize(
    ("config", "num_beams", "max_length", "penalty"),
    [(RELEASED, 1, 11, 0.6), (RELEASED, 3, 11, 0.6), (LARGER, 3, 20, 0.6), (LARGER, 5, 6, 1.0)],
    ids=["greedy", "three beams", "larger", "five beams"],
)
def test_captions_are_those_of_the_authors_decoding(config, num_beams, max_length, penalty, cached):
    """Their limit is one more: their loop ends a token before it."""
    lengths, ended = set[int](), set[bool]()
    for seed in range(6):
        ours, images = captioner(seed, config), images_of(config, 5)
        official, omitted = to_released(ours)
        assert not omitted
        theirs = OfficialCaptioner(official, config, MASK)
        decoding = Decoding(num_beams, penalty, max_length, cached=cached)
        expected = theirs.generate(images, num_beams, max_length + 1, penalty)
        for mine, (ids, score) in zip(generate(ours, images, decoding), expected, strict=True):
            assert mine[0].ids == ids
            assert abs(mine[0].score - score) < 1e-4
            lengths.add(len(ids))
            ended.add(mine[0].ended)
    assert len(lengths) > 3 and ended == {True, False}  # not degenerate
