"""Which stages of a fine-tuning a changed setting makes stale, and which ones two recipes share.

A stage's output is that of its fingerprint, so equal fingerprints are one computation.
"""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model import BEiT3Config
from orchestration.storage.store import Store
from pipelines.pretrain import export
from pipelines.pretrain.checkpoints import NETWORK_FILE
from pipelines.workflows.finetune import build_finetuning
from pipelines.workflows.finetune_recipe import FinetuneRecipe
from tests.crashes.finetuning import recipe, write_inputs
from tests.model.networks import network
from tokenizer.text import FILE_NAME

TRAINED = {"finetune", "predict/dev", "score", "task_report", "export"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder, 6, 3)
    return folder


def fingerprints(changed: FinetuneRecipe, workdir: Path) -> dict[str, str]:
    plan = build_finetuning(changed).plan(Store(workdir))
    return {planned.stage.name: planned.fingerprint for planned in plan}


def changed(inputs: Path, section: str, values: Mapping[str, Any]) -> FinetuneRecipe:
    written = recipe(inputs).model_dump(exclude_unset=True)
    own = written.get(section, {})
    return FinetuneRecipe.model_validate(
        {**written, section: {**own, **values} if isinstance(own, dict) else values}
    )


@pytest.mark.parametrize(
    ("section", "values", "stale"),
    [
        ("finetune", {"lr": 2e-3}, TRAINED),
        ("finetune", {"ema_decay": 0.9}, TRAINED),
        ("finetune", {"augment": {"flip": False}}, TRAINED),
        ("finetune", {"micro_batch": 2, "num_workers": 4, "checkpoint_every": 5}, set()),
        ("published", {"dev/accuracy": 0.5}, set()),
        ("predict", {"batch_size": 3, "num_actors": 2}, set()),
        ("predict", {"precision": "bf16"}, TRAINED - {"finetune"}),
        ("network", {"image_size": 40}, TRAINED | {"start"}),
        ("network", {"fresh_weights": True}, TRAINED | {"start"}),
        ("task", {"label_smoothing": 0.2}, TRAINED | {"labels"}),
        ("task", {"form": "linear"}, TRAINED | {"labels"}),
    ],
)
def test_a_changed_setting_makes_stale_what_depends_on_it_and_no_more(
    inputs, tmp_path, section, values, stale
):
    before = fingerprints(recipe(inputs), tmp_path)
    after = fingerprints(changed(inputs, section, values), tmp_path)
    assert {name for name in before if before[name] != after[name]} == stale


def test_two_sizes_of_a_network_have_examples_and_labels_in_common(inputs, tmp_path):
    larger = tmp_path / "larger"
    larger.mkdir()
    shutil.copy(inputs / "start" / FILE_NAME, larger)
    written = BEiT3Config.from_json((inputs / "start" / NETWORK_FILE).read_text())
    export.write_network(larger, network(replace(written, depth=4)))
    before = fingerprints(recipe(inputs), tmp_path / "work")
    other = recipe(inputs).model_copy(update={"start_from": str(larger)})
    after = fingerprints(other, tmp_path / "work")
    shared = {name for name in before if before[name] == after[name]}
    assert shared == {"prepare/train", "prepare/dev", "labels"}
