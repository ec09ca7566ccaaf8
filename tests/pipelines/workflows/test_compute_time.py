"""How long a plan says that networks compute, against operations that other programs count."""

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from orchestration.recipe import load_recipe
from orchestration.reporting.estimates import Estimate
from pipelines.builtin_recipes import recipe_path
from pipelines.tokens.vqkd_training import VQKDTrainingParams
from pipelines.workflows.compute_time import compute_times, encoder_flops, step_operations
from pipelines.workflows.pretrain_recipe import PretrainRecipe
from pipelines.workflows.scale import scale_lines
from tokenizer.vqkd import VQKD

CONTACT = ["download.contact=a@b.example"]
ON_CPU = [
    *("image_tokens.gpus_per_actor=0", "image_tokens.num_actors=2"),
    *("image_tokenizer.use_gpu=false", "train.use_gpu=false", "image_tokens.cpus_per_actor=1"),
]


def lines(*changes, images=14_000_000, pairs=0, estimates=None, recipe="base"):
    """The lines of a plan of a recipe."""
    chosen = load_recipe(PretrainRecipe, recipe_path(recipe), overrides=[*CONTACT, *changes])
    return "\n".join(compute_times(chosen, {"image": images, "pair": pairs}, estimates or {}))


@pytest.mark.parametrize("sizes", [{}, {"image_size": 256}, {"width": 192, "num_heads": 3}])
def test_the_operations_of_the_encoder_are_those_that_torch_counts(sizes):
    params = VQKDTrainingParams(**sizes)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = VQKD(params.config(teacher_dim=512))
        network.encoder(torch.empty(1, 3, params.image_size, params.image_size))
    assert encoder_flops(params) == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_the_operations_of_the_encoder_are_those_of_timm_s_network_of_this_size():
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = timm.create_model("vit_base_patch16_224", num_classes=0)
        network(torch.empty(1, 3, 224, 224))
    assert encoder_flops(VQKDTrainingParams()) == pytest.approx(counter.get_total_flops(), rel=0.02)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (ON_CPU, "image_tokens: 2 views of about 14000000 images take about 142"),
        (ON_CPU, "days on 2 CPU cores (assumed: 0.04 TFLOP/s each); set image_tokens.gpus_per_act"),
        (ON_CPU, "pretrain: 200000 steps take about"),
        (
            ["image_tokens.gpus_per_actor=0.25"],
            "on 2 GPUs (assumed: 15 TFLOP/s each, as of an A100 40GB)",
        ),
        (["image_tokenizer.use_gpu=false"], "set image_tokenizer.use_gpu=true"),
    ],
)
def test_a_plan_names_long_work_and_what_shortens_it(changes, words):
    assert words in lines(*changes)


def test_work_of_minutes_and_work_that_was_measured_are_not_named():
    warmup = ("train.warmup_steps=1", "image_tokenizer.warmup_steps=1")
    assert lines("train.steps=10", "image_tokenizer.steps=10", *warmup, images=1000) == ""
    known = {name: Estimate(seconds=9) for name in ("image_tokens", "image_tokenizer", "pretrain")}
    assert lines(*ON_CPU, estimates=known) == ""
    assert "image_tokenizer:" not in lines("image_tokenizer.weights=vqkd.pth")


def test_the_giant_s_run_takes_weeks_on_256_gpus_as_in_the_paper():
    chosen = load_recipe(
        PretrainRecipe, recipe_path("giant"), overrides=[*CONTACT, "train.codes=online"]
    )
    assert " 21.6 days for 1000000 steps" in next(iter(scale_lines(chosen)))  # the paper's: 14
    assert "pretrain" not in lines("train.codes=online", recipe="giant")


def test_codes_in_the_step_cost_the_encoder_once_for_each_image():
    stored, online = (
        load_recipe(
            PretrainRecipe, recipe_path("base"), overrides=[*CONTACT, f"train.codes={codes}"]
        )
        for codes in ("stored", "online")
    )
    more = step_operations(online) - step_operations(stored)
    assert more == pytest.approx(4096 * encoder_flops(online.image_tokenizer))
