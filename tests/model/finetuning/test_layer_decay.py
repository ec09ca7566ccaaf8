"""Factors of the learning rate and weight decay against the authors' rules and timm's grouping."""

import pytest
import torch
from timm.optim import param_groups_layer_decay

from model import BEiT3
from model.finetuning.layer_decay import is_decayed, lr_scale, parameter_groups
from model.finetuning.released import to_released
from model.finetuning.task_networks import ForRetrieval, ForVisualQuestionAnswering
from tests.model.networks import RELEASED

DECAY = 0.65


def official_layer(name: str, num_layers: int) -> int:
    """The layer by the authors' rule on the released name."""
    if "embed" in name:
        return 0
    return int(name.split("layers.")[1].split(".")[0]) + 1 if "layers." in name else num_layers + 1


def official_decays(name: str, tensor: torch.Tensor) -> bool:
    skipped = ("embed_positions.A.weight", "vision_embed.cls_token", "logit_scale")
    return tensor.ndim > 1 and not name.endswith((".bias", *skipped))


@pytest.mark.parametrize(
    "make", [ForRetrieval, lambda network: ForVisualQuestionAnswering(network, 4)]
)
def test_every_parameter_has_the_factor_and_the_decay_of_its_released_name(make):
    torch.manual_seed(0)
    network = make(BEiT3(RELEASED))
    marks = {}
    with torch.no_grad():  # a value that says which parameter a released tensor came from
        for number, (name, parameter) in enumerate(network.named_parameters(), start=1):
            parameter.fill_(number)
            marks[number] = (name, parameter)
    seen = set()
    for official, tensor in to_released(network)[0].items():
        for number in set(tensor.unique().long().tolist()) - {0}:
            name, parameter = marks[number]
            expected = DECAY ** (RELEASED.depth + 1 - official_layer(official, RELEASED.depth))
            assert lr_scale(name, RELEASED.depth, DECAY) == pytest.approx(expected), name
            assert is_decayed(name, parameter) == official_decays(official, tensor), name
            seen.add(number)
    assert seen == set(marks)


def test_groups_hold_every_parameter_once_with_timm_s_factors():
    """timm numbers the layers itself if the network says how its parameters are grouped."""

    class Grouped(ForRetrieval):
        def group_matcher(self, coarse: bool = False):
            return {
                "stem": r"^network\.(?:vision|language)\.",
                "blocks": [(r"^network\.blocks\.(\d+)", None), (r"^(?!network\.blocks)", (999,))],
            }

        def no_weight_decay(self):
            return {"network.vision.positions", "network.vision.class_token", "logit_scale"}

    network = Grouped(BEiT3(RELEASED))
    ours = parameter_groups(
        network.named_parameters(),
        num_layers=RELEASED.depth,
        layer_decay=DECAY,
        weight_decay=0.05,
    )
    factors = {id(p): group["lr_scale"] for group in ours for p in group["params"]}
    assert sum(len(group["params"]) for group in ours) == len(list(network.parameters()))
    theirs = param_groups_layer_decay(
        network,
        weight_decay=0.05,
        no_weight_decay_list=network.no_weight_decay(),
        layer_decay=DECAY,
    )
    for group in theirs:
        for parameter in group["params"]:
            assert factors[id(parameter)] == pytest.approx(group["lr_scale"])


def test_a_head_has_its_own_factor():
    assert lr_scale("head.0.weight", 12, 1.0, head_lr_factor=20) == 20
    assert lr_scale("pooler.dense.weight", 12, 1.0, head_lr_factor=20) == 1


def test_frozen_parameters_are_in_no_group():
    network = ForRetrieval(BEiT3(RELEASED))
    network.network.requires_grad_(False)
    groups = parameter_groups(
        network.named_parameters(), num_layers=3, layer_decay=1.0, weight_decay=0.0
    )
    assert sum(len(group["params"]) for group in groups) == 3
