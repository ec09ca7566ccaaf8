"""Pretraining on other numbers of GPUs, against the account of a step and hand-worked numbers."""

from itertools import pairwise

import pytest
from typer.testing import CliRunner

from model import BEiT3Config
from model.training.cost import memory_bytes, parameters_by_part
from orchestration.recipe import load_recipe
from pipelines.builtin_recipes import recipe_path
from pipelines.cli import app
from pipelines.workflows.compute_time import compute_times, step_operations
from pipelines.workflows.feed_memory import held_bytes
from pipelines.workflows.gpu_rates import GPUS, measured_for
from pipelines.workflows.pretrain_recipe import PretrainRecipe
from pipelines.workflows.scale import NUM_WORKERS, scale, scale_lines

CONTACT = "download.contact=a@b.example"


def recipe(name: str, *changes: str) -> PretrainRecipe:
    return load_recipe(PretrainRecipe, recipe_path(name), overrides=[CONTACT, *changes])


@pytest.mark.parametrize("gpu", GPUS.values(), ids=GPUS)
@pytest.mark.parametrize("name", ["base", "large", "giant"])
def test_more_workers_compute_and_hold_less_and_the_figures_agree_with_the_account(name, gpu):
    chosen = recipe(name)
    found = [scale(chosen, gpu, number) for number in NUM_WORKERS]
    for fewer, more in pairwise(found):
        assert more.compute_s == pytest.approx(fewer.compute_s / 2)
        assert more.memory <= fewer.memory and more.host_memory <= fewer.host_memory
        assert more.num_micro_batches <= fewer.num_micro_batches
    for each in found:
        train = chosen.train.model_copy(update={"num_workers": each.num_workers})
        here = chosen.model_copy(update={"train": train})
        assert each.host_memory == held_bytes(here)
        assert each.step_s == max(each.compute_s, each.communication_s)
        assert each.days == pytest.approx(chosen.train.steps * each.step_s / 86_400)
        assert 0 < each.efficiency <= 1
        done = each.compute_s * each.num_workers * gpu.peak() * measured_for(chosen.train).share
        assert done == pytest.approx(step_operations(chosen))
        samples = each.micro_batch * each.num_micro_batches * each.num_workers
        assert samples >= sum(chosen.train.samples_per_step.values())
        config = train.network.config(vocab_size=chosen.text_tokenizer.vocab_size, num_codes=8192)
        shapes = train.sample_shapes(config, chosen.text_tokens.length)
        assert each.memory == sum(
            memory_bytes(config, shapes, train.layout(each.num_workers)).values()
        )


def test_the_giant_s_step_is_that_of_the_published_sizes():
    """1408 wide, 40 layers, experts of 6144: products of 3 x 2048 samples, four passes."""
    chosen = recipe("giant")
    found = scale(chosen, GPUS["A100 40GB"], 256)
    assert (found.micro_batch, found.num_micro_batches) == (8, 3)
    positions = 2048 * (257 + 512 + 257 + 64)
    products = 4 * 2 * positions * 40 * (4 * 1408**2 + 2 * 1408 * 6144)
    expected = products / (256 * 312e12 * measured_for(chosen.train).share)
    assert found.compute_s == pytest.approx(expected, rel=0.1)
    # The published 1.9 billion parameters: bf16 gathered twice and fp32 reduced, three times.
    assert found.sent_bytes == pytest.approx(3 * 8 * 1.9e9, rel=0.03)
    assert found.communication_s == pytest.approx(3 * 8 * 1.9e9 / 25e9, rel=0.03)


def test_gradients_that_are_summed_in_bf16_take_a_quarter_of_the_traffic_away():
    """Of 2 + 2 + 4 bytes for each weight and micro-batch, 2 + 2 + 2 are left."""
    sent = {
        dtype: scale(recipe("giant", f"train.reduce_dtype={dtype}"), GPUS["H100"], 64).sent_bytes
        for dtype in ("fp32", "bf16")
    }
    assert sent["bf16"] == pytest.approx(sent["fp32"] * 3 / 4)


def test_copies_send_their_gradients_twice_in_a_step():
    found = scale(recipe("base"), GPUS["H100"], 8)
    tokens = recipe("base").text_tokenizer.vocab_size
    number = sum(
        parameters_by_part(BEiT3Config.named("base", vocab_size=tokens, num_codes=8192)).values()
    )
    assert found.sent_bytes == pytest.approx(7 / 8 * 8 * number)


@pytest.mark.parametrize(
    ("changes", "sent"),
    [
        ([], 2 + 2 + 4),
        (["train.reduce_dtype=bf16"], 2 + 2 + 2),
        (["train.precision=fp32"], 4 + 4 + 4),
    ],
)
def test_shards_travel_in_the_types_of_the_recipe(changes, sent):
    found = scale(recipe("giant", *changes), GPUS["H100"], 64)
    usual = scale(recipe("giant"), GPUS["H100"], 64)
    assert found.sent_bytes * 8 == pytest.approx(usual.sent_bytes * sent)


def test_products_in_fp32_are_slower_than_those_in_bf16():
    """An A100 has 19.5 TFLOP/s in fp32; 5 times the days, as bf16 reaches less of its peak."""
    fp32, bf16 = (
        scale(recipe("base", f"train.precision={precision}"), GPUS["A100 40GB"], 8)
        for precision in ("fp32", "bf16")
    )
    assert fp32.compute_s > 4 * bf16.compute_s
    assert "75% of the dense peak of 19.5 TFLOP/s in fp32;" in next(
        iter(scale_lines(recipe("base", "train.precision=fp32")))
    )


@pytest.mark.parametrize(
    ("name", "clusters"),
    [
        ("base", ["8 A100 40GB", "256 A100 40GB", "64 H100"]),
        ("giant", ["256 A100 40GB", "64 H100"]),
    ],
)
def test_a_plan_names_each_cluster_once_and_what_it_assumes(name, clusters):
    chosen = recipe(name)
    lines = list(scale_lines(chosen))
    assert [line.split(":")[0] for line in lines] == [f"pretrain on {each}" for each in clusters]
    for line in lines:
        assert " of the dense peak of" in line and "GB/s" in line
    # No other line of a plan says how long the same pretraining takes.
    assert not [
        line
        for line in compute_times(chosen, {"image": 10**7, "pair": 10**7}, {})
        if line.startswith("pretrain")
    ]
    assert not list(scale_lines(recipe("tiny")))


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        (["train.num_workers=8"], "set more train.num_workers, or a smaller train.network.size"),
        (["train.num_workers=64", "train.micro_batch=8"], "set a larger train.micro_batch"),
        ([], "set train.reduce_dtype=bf16, or a smaller train.network.size: communication"),
        (["train.reduce_dtype=bf16"], "set a smaller train.network.size: communication"),
    ],
)
def test_a_plan_says_what_makes_a_long_training_shorter(changes, remedy):
    line = next(iter(scale_lines(recipe("giant", *changes))))
    assert remedy in line


def test_the_table_needs_no_data():
    arguments = ["plan", "giant", "--scale"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    rows = [line.split()[0] for line in shown.output.splitlines() if line[:7].strip().isdigit()]
    assert rows == [str(number) for number in NUM_WORKERS] * 2


def test_the_table_is_not_that_of_a_shrunk_recipe():
    shown = CliRunner().invoke(app, ["plan", "giant", "--scale", "--shrink"])
    assert shown.exit_code == 2 and "--scale --shrink" in shown.output


def test_a_plan_without_workdir_is_refused_unless_it_tabulates():
    shown = CliRunner().invoke(app, ["plan", "tiny"])
    assert shown.exit_code == 2 and "--workdir" in shown.output
