"""Every stage predicts the memory of its workers, and what its parameters say enters.

How near the predictions are is measured by ``benchmarks/full_size.py``.
"""

import pytest

from orchestration.reporting.usage import WORKER_BYTES, Expected, Workers
from pipelines.pretrain.crop_processes import PROCESS_BYTES
from pipelines.workflows.pretrain import build_workflow
from pipelines.workflows.pretrain_recipe import PretrainRecipe

SOURCES = {
    "own": {"format": "image_folder", "folder": "images"},
    "list": {"format": "csv", "list": "list.csv"},
    "texts": {"format": "txt", "file": "texts.txt"},
}
SIZE = Expected(rows=1_000_000, bytes=30_000_000_000)
"Of every output: rows as large as stored images."


def predicted(size: Expected = SIZE, **changes) -> dict[str, Workers | None]:
    values = {"name": "own", "sources": SOURCES, "download": {"contact": "me@example.org"}}
    recipe = PretrainRecipe.model_validate(values | changes)
    return {
        stage.name: stage.workers(dict.fromkeys(stage.input_names, size))
        for stage in build_workflow(recipe).stages
    }


def memory(name: str, size: Expected = SIZE, **changes) -> int:
    workers = predicted(size, **changes)[name]
    assert workers is not None
    return workers.memory


@pytest.mark.parametrize("size", [SIZE, Expected()], ids=["known inputs", "unknown inputs"])
def test_every_stage_predicts_a_worker_between_an_idle_one_and_a_large_machine(size):
    for name, workers in predicted(size).items():
        assert workers is not None, name
        assert WORKER_BYTES < workers.memory < 100e9, (name, workers)


@pytest.mark.parametrize(
    ("name", "few", "many"),
    [
        ("index/list", {"slice_lines": 1000}, {"slice_lines": 100_000}),
        ("download/list", {"slice_rows": 100}, {"slice_rows": 10_000}),
        ("curate", {"partition_rows": 1000}, {"partition_rows": 100_000}),
        ("text_tokenizer", {"sample_lines": 1000}, {"sample_lines": 100_000}),
        ("text_tokens", {"row_group_rows": 100}, {"row_group_rows": 100_000}),
        ("image_tokenizer", {"substreams": 1}, {"substreams": 16}),
        ("image_tokens", {"slice_rows": 100}, {"slice_rows": 10_000}),
        ("pair_tokens", {"batch_size": 1}, {"batch_size": 256}),
        ("pretrain", {"shuffle_window": 1}, {"shuffle_window": 8}),
        ("evaluate", {"gpus_per_actor": 0}, {"gpus_per_actor": 1}),
        ("export", {"network": {"size": "base"}}, {"network": {"size": "large"}}),
    ],
)
def test_a_parameter_that_holds_more_rows_predicts_more_memory(name, few, many):
    sections = {"pretrain": "train", "export": "train", "index/list": None}
    section = sections.get(name, name.split("/")[0])
    lows, highs = (
        {"sources": SOURCES | {"list": SOURCES["list"] | change}}
        if section is None
        else {section: change | ({"contact": "me@example.org"} if section == "download" else {})}
        for change in (few, many)
    )
    assert memory(name, **highs) > 1.1 * memory(name, **lows)


def test_a_given_image_tokenizer_is_not_trained():
    few, many = ({"weights": "vqkd.pt", "substreams": number} for number in (1, 16))
    given = memory("image_tokenizer", image_tokenizer=few)
    assert given == memory("image_tokenizer", image_tokenizer=many)
    assert given + 2e9 < memory("image_tokenizer", image_tokenizer={"substreams": 1})


def test_processes_that_cut_images_are_counted():
    """One core needs none."""
    one, three, four = (memory("pretrain", train={"cpus_per_worker": cpus}) for cpus in (1, 3, 4))
    assert four - three == PROCESS_BYTES and three - one == 3 * PROCESS_BYTES


@pytest.mark.parametrize("name", ["curate", "data_report", "pretrain"])
def test_more_rows_of_the_inputs_predict_more_memory(name):
    many = Expected(rows=100_000_000, bytes=3_000_000_000_000)
    assert memory(name, many) > memory(name, SIZE) + 100e6


def test_a_stage_that_reads_row_group_by_row_group_needs_no_more_for_more_rows():
    many = Expected(rows=100_000_000, bytes=3_000_000_000_000)
    assert memory("image_tokens", many) == memory("image_tokens", SIZE)


@pytest.mark.parametrize("name", ["image_tokens", "evaluate"])
def test_larger_rows_of_the_inputs_predict_more_memory(name):
    small = Expected(rows=1_000_000, bytes=1_000_000_000)
    assert memory(name, SIZE) > 1.1 * memory(name, small)
