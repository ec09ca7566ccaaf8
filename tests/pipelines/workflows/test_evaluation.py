"""An evaluation alone: which stages it has, and what it takes from the weights that it measures."""

import re
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import load_file, save_file

from model import BEiT3, BEiT3Config
from orchestration.errors import RecipeError, StageError
from orchestration.fingerprint import fingerprint_of
from orchestration.recipe import load_recipe
from orchestration.storage.store import Store
from pipelines.commands.options import console
from pipelines.open_recipe import open_recipe
from pipelines.pretrain import evaluate
from pipelines.pretrain.evaluate import given_network
from pipelines.pretrain.export import write_network, write_text_tokenizer
from pipelines.workflows.evaluation_recipe import EvaluationRecipe
from pipelines.workflows.kinds import build_workflow, recipe_type
from tests.pipelines.tokens.test_image_tokens import TOKENIZER
from tokenizer.text import TextTokenizer, train
from tokenizer.vqkd import VQKD

WORDS = ["a red circle, a blue square.", "the blue circle; one red square!"] * 30
GRID = TOKENIZER.image_size // TOKENIZER.patch_size


@pytest.fixture
def export(tmp_path) -> Path:
    """What the stage ``export`` writes, of a network with random weights."""
    folder = tmp_path / "export"
    folder.mkdir()
    model = tmp_path / "spm.model"
    model.write_bytes(train(WORDS, vocab_size=25, character_coverage=1.0))
    torch.manual_seed(0)
    config = BEiT3Config(
        32, 2, 2, 64, image_size=8 * GRID, patch_size=8, fusion_layers=1, max_text_length=24,
        vocab_size=TextTokenizer.load(model).num_rows, num_codes=TOKENIZER.num_codes,
    )  # fmt: skip
    write_network(folder, BEiT3(config))
    write_text_tokenizer(folder, model, config.max_text_length)
    VQKD(TOKENIZER).save(folder / "vqkd.pt")
    return folder


@pytest.fixture
def file(tmp_path, export) -> Path:
    """A recipe for one's own pairs, whose images are files."""
    (tmp_path / "own.csv").write_text("url,caption\nimages/a.jpg,a red circle\n")
    path = tmp_path / "own.yaml"
    path.write_text(
        f"name: own\nmodel: {export}\n"
        f"sources:\n  own: {{format: csv, list: {tmp_path / 'own.csv'}}}\n"
        "download: {contact: me@example.org}\n"
    )
    return path


def fingerprints(path: Path, *overrides: str) -> dict[str, str]:
    made: dict[str, str] = {}
    for stage in build_workflow(load_recipe(EvaluationRecipe, path, overrides=overrides)).stages:
        made[stage.name] = fingerprint_of(stage.identity(made))
    return made


def test_a_recipe_with_a_model_is_an_evaluation():
    assert recipe_type({"name": "own", "model": "runs/base"}) is EvaluationRecipe


def test_own_pairs_pass_the_stages_of_a_pretraining_and_are_measured(file, export, tmp_path):
    opened = open_recipe(str(file), str(tmp_path / "work"), [], console)
    stages = {stage.name: stage for stage in opened.workflow.stages}
    assert list(stages) == [
        "index/own", "download/own", "curate", "text_tokenizer", "text_tokens", "image_tokenizer",
        "image_tokens", "pair_tokens", "evaluate",
    ]  # fmt: skip
    assert stages["text_tokens"].params.length == 24  # as long as the network can read
    assert stages["image_tokenizer"].params.image_size == TOKENIZER.image_size
    assert stages["pair_tokens"].params.held_out_fraction == 0.5
    assert stages["pair_tokens"].params.held_out_by == "caption"
    assert stages["evaluate"].params.model == str(export)
    for stage in stages.values():
        assert stage.requires() is None


def test_the_same_weights_elsewhere_are_measured_once_and_others_anew(file, export, tmp_path):
    before = fingerprints(file)
    moved = export.rename(tmp_path / "moved")
    assert fingerprints(file, f"model={moved}") == before
    config = given_network(str(moved)).config
    shutil.rmtree(moved / "timm")
    torch.manual_seed(1)
    write_network(moved, BEiT3(config))
    changed = fingerprints(file, f"model={moved}")
    assert {name for name in before if before[name] != changed[name]} == {"evaluate"}


def test_what_is_measured_changes_the_evaluation_alone(file):
    before, changed = fingerprints(file), fingerprints(file, "evaluate.max_rows=7")
    assert {name for name in before if before[name] != changed[name]} == {"evaluate"}


def test_the_network_is_that_of_the_export(export):
    network = given_network(str(export))
    torch.manual_seed(0)
    expected, found = BEiT3(network.config).state_dict(), network.state_dict()
    assert not network.training
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("vqkd.pt", r"does not come with its image tokenizer; .* \(given_codes\) cannot"),
        ("sentencepiece.bpe.model", "does not come with its text tokenizer"),
        ("network.json", "neither a checkpoint of pretrain"),
    ],
)
def test_weights_without_what_belongs_to_them_are_refused(file, export, tmp_path, missing, words):
    (export / missing).unlink()
    with pytest.raises(RecipeError, match=words):
        open_recipe(str(file), str(tmp_path / "work"), [], console)


def refused(file: Path, work: Path) -> str:
    """Return the line by which a plan refuses the weights."""
    with pytest.raises(RecipeError) as caught:
        opened = open_recipe(str(file), str(work), [], console)
        opened.workflow.check(opened.workflow.plan(opened.store))
    return str(caught.value).removeprefix("some stages cannot run, nothing was started\n")


@pytest.mark.parametrize("name", ["model.safetensors", "vqkd.pt", "sentencepiece.bpe.model"])
@pytest.mark.parametrize("damage", [lambda data: data[:-100], lambda data: b"", lambda data: b"x"])
def test_a_damaged_export_is_refused_by_the_plan_in_one_line(file, export, tmp_path, name, damage):
    (export / name).write_bytes(damage((export / name).read_bytes()))
    line = refused(file, tmp_path / "work")
    assert f"model: {export}" in line and name in line and "\n" not in line


def test_weights_that_are_no_numbers_are_refused_by_the_plan(file, export, tmp_path):
    state = load_file(export / "model.safetensors")
    state["mim_head.bias"][3] = torch.nan
    save_file(state, export / "model.safetensors")
    expected = f"evaluate: model: {export}: mim_head.bias holds values that are not finite"
    assert refused(file, tmp_path / "work").startswith(expected)
    with pytest.raises(RecipeError, match="not finite"):
        given_network(str(export))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (lambda state: {n: t for n, t in state.items() if not n.startswith("mlm_head")},
         "it has no mlm_head.* which a pretraining gives"),
        (lambda state: {n: t for n, t in state.items() if n != "vision.class_token"},
         r"the weights do not fit the network: 1 missing \(vision.class_token"),
        (lambda state: state | {"language.positions": state["language.positions"][:9]},
         "network.json is another network's"),
    ],
)  # fmt: skip
def test_weights_of_another_network_are_refused_by_the_plan(file, export, tmp_path, changed, words):
    save_file(changed(load_file(export / "model.safetensors")), export / "model.safetensors")
    assert re.search(words, refused(file, tmp_path / "work"))
    with pytest.raises(RecipeError, match=words):
        given_network(str(export))


@pytest.mark.parametrize("is_given", [True, False])
def test_given_weights_that_nothing_measures_are_an_error_and_trained_ones_a_remark(
    monkeypatch, is_given
):
    monkeypatch.setattr(evaluate, "evaluation_slices", lambda *_: Mock(all=[]))
    monkeypatch.setattr(evaluate, "evaluation_numbers", lambda *_: {})
    context = Mock(seed=0)
    subject = evaluate._Subject(Mock(), 0, Mock(), is_given)
    with pytest.raises(StageError, match="no row was held out") if is_given else nullcontext():
        evaluate.run(context, evaluate.Params(), subject)
    assert context.commit.called == context.progress.remark.called == (not is_given)


def test_tokenizers_of_another_network_are_refused(file, export, tmp_path):
    model = export / "sentencepiece.bpe.model"
    own = model.read_bytes()
    model.write_bytes(train(WORDS, vocab_size=24, character_coverage=1.0))
    rows = TextTokenizer.load(model).num_rows
    line = refused(file, tmp_path / "work")
    assert f"has {rows + 1} rows for the vocabulary, {model} needs {rows}; it belongs" in line
    model.write_bytes(own)
    VQKD(replace(TOKENIZER, num_codes=TOKENIZER.num_codes + 2)).save(export / "vqkd.pt")
    line = refused(file, tmp_path / "work")
    assert f"predicts {TOKENIZER.num_codes} codes, {export}/vqkd.pt has" in line


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["held_out_fraction=1"], "held_out_fraction"),
        (["sources={}"], "sources: name at least one"),
        (["train.steps=3"], "train"),
        ([f"model={__file__}"], "model: .* is a file, .* name the folder of an export"),
    ],
)
def test_a_recipe_that_cannot_be_run_is_refused(file, tmp_path, settings, words):
    with pytest.raises(RecipeError, match=words):
        open_recipe(str(file), str(tmp_path / "work"), settings, console)


def test_an_evaluation_is_not_shrunk(file, tmp_path):
    with pytest.raises(RecipeError, match="--shrink is for a training"):
        open_recipe(str(file), str(tmp_path / "work"), [], console, shrink=True)


def test_a_workdir_is_read_by_its_newest_checkpoint_and_is_not_the_one_to_write(
    file, export, tmp_path
):
    store = Store(tmp_path / "export")
    with pytest.raises(RecipeError, match="model is the workdir of this run"):
        open_recipe(str(file), store.uri, [], console)
