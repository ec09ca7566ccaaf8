"""Which settings make a result another one: following an error's advice throws no work away."""

from typing import Any

import pytest

from orchestration.fingerprint import semantic
from orchestration.params import StageParams
from pipelines.ingest import download
from pipelines.pretrain import params as pretrain
from pipelines.tokens import image_tokenizer

DOWNLOAD = download.Params(contact="a@example.org")
TOKENIZER = image_tokenizer.Params()
PRETRAIN = pretrain.Params(images_per_step=8, texts_per_step=8, pairs_per_step=8, substreams=4)


@pytest.mark.parametrize(
    ("params", "change"),
    [
        (DOWNLOAD, {"contact": "b@example.org"}),
        (DOWNLOAD, {"connect_timeout_s": 50.0}),
        (DOWNLOAD, {"read_timeout_s": 50.0}),
        (DOWNLOAD, {"total_timeout_s": 90.0}),
        (DOWNLOAD, {"max_attempts": 9}),
        (DOWNLOAD, {"max_unreachable_fraction": 1.0}),
        (TOKENIZER, {"min_usage": 0.1}),
        (TOKENIZER, {"min_cosine": -1.0}),
        (TOKENIZER, {"num_report_images": 7}),
        (TOKENIZER, {"max_skipped_steps": 99}),
        (TOKENIZER, {"checkpoint_every": 3}),
        (PRETRAIN, {"max_skipped_steps": 99}),
        (PRETRAIN, {"max_failures": 0}),
        (PRETRAIN, {"checkpoint_every": None}),
        (PRETRAIN, {"checkpoint_every_minutes": 0.5}),
        (PRETRAIN, {"keep_every": 7}),
        (PRETRAIN, {"log_every": 7}),
    ],
)
def test_floors_patience_and_reports_do_not_make_another_result(
    params: StageParams, change: dict[str, Any]
):
    assert semantic(params.model_copy(update=change)) == semantic(params)


@pytest.mark.parametrize(
    ("params", "change"),
    [
        (DOWNLOAD, {"max_bytes": 1000}),
        (DOWNLOAD, {"obey_robots_txt": True}),
        (TOKENIZER, {"num_codes": 64}),
        (TOKENIZER, {"dead_code_threshold": 0.5}),
        (PRETRAIN, {"steps": 5}),
        (PRETRAIN, {"lr": 1.0}),
    ],
)
def test_what_is_computed_makes_another_result(params: StageParams, change: dict[str, Any]):
    assert semantic(params.model_copy(update=change)) != semantic(params)
