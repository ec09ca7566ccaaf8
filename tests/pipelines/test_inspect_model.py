"""``beit3 inspect model``: what it prints, and what it refuses."""

from typing import get_args

import pytest
from typer.testing import CliRunner

from model.network.config import SIZES
from orchestration.errors import RecipeError
from pipelines import cli
from pipelines.commands.inspect_model import Size


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(cli.app, ["inspect", "model", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_giant_is_printed_by_part():
    text = printed("giant", "--workers", "256", "--sharded")
    for number in ("692.36", "317.42", "51.93", "90.13", "sharded over 256"):
        assert number in text


@pytest.mark.parametrize("option", ["--workers", "--micro-batch", "--samples-per-stream"])
def test_a_count_of_zero_is_refused(option):
    result = CliRunner().invoke(cli.app, ["inspect", "model", "tiny", option, "0"])
    assert result.exit_code == 2 and option in result.output


def test_fields_of_the_network_can_be_set():
    released = ("attention=decoupled", "fusion_layers=0", "subln=true")
    text = printed("base", *(word for field in released for word in ("--set", field)))
    assert "276.51" in text


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("fusion_layers=99", "fusion_layers 99 is not between 0 and depth 12"),
        ("fusion_layrs=1", "fusion_layrs: unknown key; did you mean 'fusion_layers'"),
        ("widht=8", "widht: unknown key; did you mean 'width'"),
        ("depth=x", "depth: .*valid integer.*given: 'x'"),
        ("fusion_layers", "expected KEY=VALUE"),
    ],
)
def test_an_impossible_network_is_refused(setting, words):
    with pytest.raises(RecipeError, match=words):
        printed("base", "--set", setting)


def test_the_command_offers_every_named_size():
    assert get_args(Size) == tuple(SIZES)


@pytest.mark.parametrize(
    "option",
    [
        "--vocab-size", "--num-codes", "--text-length", "--caption-length",
        "--samples-per-stream", "--workers", "--micro-batch",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", ["0", "-5"])
def test_a_number_below_one_is_refused(option, value):
    result = CliRunner().invoke(cli.app, ["inspect", "model", "tiny", option, value])
    assert result.exit_code == 2 and option in result.output
