"""Broken recipes on the command line: one clear message, exit code 1, nothing written."""

from functools import partial
from pathlib import Path

import huggingface_hub.constants
import pytest
from typer.testing import CliRunner

from orchestration.errors import RecipeError, StoreError
from orchestration.storage.store import Store
from pipelines.cli import app, main
from pipelines.commands.options import console
from pipelines.commands.run import plan, run_opened
from pipelines.commands.ui import ui
from pipelines.commands.workdir import gc, status
from pipelines.open_recipe import open_recipe
from tests.s3 import BUCKET

GOOD = """
name: own
sources:
  pairs: {{format: cc3m, list: {folder}/pairs.tsv}}
  images: {{format: imagenet21k, archive: {folder}/images.tar}}
  texts: {{format: jsonl, file: {folder}/texts.jsonl}}
download: {{contact: me@example.org}}
image_tokenizer: {{teacher: hand_crafted}}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    for name in ("pairs.tsv", "images.tar", "texts.jsonl"):
        (tmp_path / name).write_text("a red square\thttp://images.test/1.jpg\n")
    path = tmp_path / "own.yaml"
    path.write_text(GOOD.format(folder=tmp_path))
    return path


def refused(recipe: Path, *settings: str) -> str:
    workdir = recipe.parent / "work"
    with pytest.raises(RecipeError) as error:
        run_opened(open_recipe(str(recipe), str(workdir), settings, console))
    assert not workdir.exists()
    return str(error.value)


def test_a_good_recipe_can_be_planned(recipe):
    workflow = open_recipe(str(recipe), str(recipe.parent / "work"), [], console).workflow
    assert [stage.name for stage in workflow.stages][:3] == [
        "index/pairs", "download/pairs", "import/images",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("train.stepz=5", ["train.stepz", "did you mean 'steps'"]),
        ("train.steps=soon", ["train.steps", "'soon'"]),
        ("train.network.size=huge", ["train.network.size", "'huge'"]),
        ("sources.pairs.format=xml", ["sources.pairs", "unknown format 'xml'; known: cc3m, "]),
        ("sources.pairs.format=cvs", ["unknown format 'cvs'; did you mean 'csv'?"]),
        ("sources.more={list: pairs.csv}", ["sources.more: the key 'format' is missing"]),
        ("sources.pairs.lisst=x", ["sources.pairs", "lisst", "'list'"]),
        ("sources.Bad-Name={format: jsonl, file: x}", ["Bad-Name"]),
        ("image_tokenizer.image_size=100", ["image_tokenizer.image_size is 100", "14 x 14"]),
        ("train.network.num_heads=7", ["num_heads 7"]),
        ("text_tokens.length=5000", ["max_text_length"]),
        ("train.substreams=300", ["images_per_step = 2048", "substreams = 300"]),
        ("train.num_workers=3", ["num_workers = 3", "substreams = 256"]),
        ("image_tokenizer.substreams=9", ["batch_size = 512", "substreams = 9"]),
        ("download.contact=null", ["download.contact"]),
    ],
)
def test_a_broken_setting_is_one_message_that_names_the_key(recipe, setting, words):
    message = refused(recipe, setting)
    for word in words:
        assert word in message


def test_a_miniature_web_that_cannot_be_drawn_is_one_message(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "miniweb").write_text("")
    with pytest.raises(RecipeError, match=r"work/miniweb: cannot draw the miniature web \("):
        open_recipe("tiny", str(tmp_path / "work"), [], console)


def test_missing_files_are_named_all_at_once(recipe):
    (recipe.parent / "pairs.tsv").unlink()
    (recipe.parent / "texts.jsonl").unlink()
    message = refused(recipe)
    assert "sources.pairs.list" in message and "pairs.tsv" in message
    assert "sources.texts.file" in message and "texts.jsonl" in message


def test_a_missing_file_beside_a_miniature_web_is_reported_before_the_web_is_drawn(recipe):
    web = (
        "miniweb={num_cc3m: 1, num_cc12m: 1, num_classes: 1, num_images_per_class: 1, "
        "num_documents: 1}"
    )
    assert "nowhere.tsv" in refused(recipe, web, "sources.pairs.list=nowhere.tsv")


def test_a_list_of_another_format_stops_the_plan(recipe):
    for source, words in (
        ("sources.pairs={format: parquet_pairs, list: %s/pairs.tsv}", "pairs.tsv: not a Parquet"),
        ("sources.texts={format: parquet, file: %s/texts.jsonl}", "texts.jsonl: not a Parquet"),
    ):
        assert words in refused(recipe, source % recipe.parent)


def test_a_recipe_needs_all_three_kinds_of_source(recipe):
    text = recipe.read_text().replace("  texts: ", "  # ")
    recipe.write_text(text)
    assert "corpus of documents" in refused(recipe)


def test_a_teacher_without_weights_stops_the_plan(recipe, monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    message = refused(recipe, "image_tokenizer.teacher=clip")
    assert "timm/vit_base_patch16_clip_224.openai on the Hugging Face hub" in message
    assert "teacher_weights" in message
    workdir = str(recipe.parent / "work")
    with pytest.raises(RecipeError, match=r"teacher dino: its weights cannot be downloaded"):
        plan(str(recipe), workdir, ["image_tokenizer.teacher=dino"])
    message = refused(
        recipe, "image_tokenizer.teacher=clip", "image_tokenizer.teacher_weights=none.pt"
    )
    assert "image_tokenizer.teacher_weights" in message and "none.pt" in message


def test_a_workdir_without_runs_has_no_status(tmp_path):
    with pytest.raises(RecipeError, match="no workflow has run here"):
        status(str(tmp_path))
    with pytest.raises(RecipeError, match="no MLflow runs yet"):
        ui(str(tmp_path))


@pytest.mark.parametrize("name", ["file", "file/x", "file/x/y"])
def test_a_file_in_place_of_the_workdir_is_named(recipe, name, tmp_path):
    (tmp_path / "file").write_text("")
    workdir, words = str(tmp_path / name), f"^{tmp_path / 'file'} is a file, not a folder"
    for command in (status, ui, partial(plan, str(recipe)), partial(plan, "tiny")):
        with pytest.raises(StoreError, match=words):
            command(workdir=workdir)
    with pytest.raises(StoreError, match=words):
        Store(workdir).write_bytes("a", b"")


def fingerprints(recipe: Path, workdir: str, settings: list[str]) -> list[str]:
    opened = open_recipe(str(recipe), workdir, settings, console)
    return [planned.fingerprint for planned in opened.workflow.plan(opened.store)]


def test_the_same_recipe_in_any_workdir_has_the_same_fingerprints(recipe, tmp_path, s3_endpoint):
    plans = []
    elsewhere = f"s3://{BUCKET}/{tmp_path.name}"
    for parent, name, settings in (
        (tmp_path, "a", []),
        (tmp_path, "b", ["train.num_workers=4", "cluster.num_cpus=64"]),
        (elsewhere, "a", [f"storage.endpoint_url={s3_endpoint}", "storage.max_attempts=2"]),
    ):
        plans.append(fingerprints(recipe, f"{parent}/{name}", settings))
    assert plans[0] == plans[1] == plans[2]
    seeded = fingerprints(recipe, str(tmp_path / "c"), ["seed=1"])
    assert plans[0] != seeded
    assert plans[0][:5] == seeded[:5]  # sources do not depend on the seed


@pytest.mark.parametrize(
    "words", [["status"], ["rejects", "curate"], ["inspect", "{}/curate"], ["run", "{recipe}"]]
)
def test_a_missing_bucket_is_named(recipe, s3_endpoint, words):
    workdir = "s3://bukcet/work"
    words = [word.format(workdir, recipe=recipe) for word in words]
    named = [] if words[0] == "inspect" else ["--workdir", workdir]
    where = (
        ["--set", f"storage.endpoint_url={s3_endpoint}"]
        if words[0] == "run"
        else ["--endpoint-url", s3_endpoint]
    )
    shown = CliRunner().invoke(app, [*words, *named, *where])
    assert shown.exit_code != 0
    assert "there is no bucket bukcet; create it or mend the URI" in str(shown.exception)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--workdir", ""], "the workdir is empty"),
        (["--workdir", "{}/work", "--data", ""], "--data, or BEIT3_DATA: empty"),
        (["--workdir", "{}/work", "--set", "tracking.uri=''"], "leave the key out"),
        (["--workdir", "{}/work", "--set", "storage.endpoint_url=''"], "leave the key out"),
        (["--workdir", "{}/work", "--set", "sources.pairs.list=''"], "leave the key out"),
    ],
)
def test_an_empty_address_is_refused(recipe, arguments, words):
    arguments = [argument.format(recipe.parent) for argument in arguments]
    result = CliRunner().invoke(app, ["plan", str(recipe), *arguments])
    assert isinstance(result.exception, RecipeError | StoreError)
    assert words in str(result.exception)


def test_brackets_in_a_message_are_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["beit3", "status", "--workdir", str(tmp_path / "[/b] [x] y")])
    with pytest.raises(SystemExit):
        main()
    shown = capsys.readouterr().err
    assert f"{tmp_path}/[/b] [x] y: no workflow has run here" in shown
    assert f"--workdir '{tmp_path}/[/b] [x] y'" in shown


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("sources.pairs={format: csv, list: %s/p.csv, url_column: link}", "no column link; it has"),
        ("sources.pairs={format: csv, list: %s/p.csv, caption_column: alt}", "no column alt"),
        ("sources.pairs={format: jsonl_pairs, list: %s/p.jsonl, url_column: link}", "has link"),
        ("sources.texts={format: jsonl, file: %s/p.jsonl, field: body}", "has body; it has url"),
    ],
)
def test_a_column_that_the_file_lacks_stops_the_plan(recipe, source, words):
    folder = recipe.parent
    (folder / "p.csv").write_text("url,caption\nhttp://a.test/1.jpg,a cat\n")
    (folder / "p.jsonl").write_text('{"url": "http://a.test/1.jpg", "caption": "a cat"}\n')
    with pytest.raises(RecipeError, match=words):
        plan(str(recipe), str(folder / "work"), [source % folder])
    assert words in refused(recipe, source % folder)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--skip-steps", "5"], "--skip-steps 5 needs --from-step"),
        (["--from-step", "5", "--until", "curate"], "add --only with one of: image_tokenizer, "),
        (["--from-step", "5"], "2 trainings are to be run"),
    ],
)
def test_a_training_can_only_go_back_to_a_step_of_its_own(recipe, options, words):
    command = ["run", str(recipe), "--workdir", str(recipe.parent / "work"), *options]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, RecipeError) and words in str(result.exception)
    assert not (recipe.parent / "work").exists()


@pytest.mark.parametrize("number", ["-1", "1000000001", "99999999999999999999", "x"])
def test_data_that_no_training_has_cannot_be_left_out(recipe, number):
    options = ["--from-step", "5", "--skip-steps", number, "--workdir", str(recipe.parent / "work")]
    result = CliRunner().invoke(app, ["run", str(recipe), *options])
    assert result.exit_code == 2 and "--skip-steps" in result.output


@pytest.mark.parametrize("delete", [False, True])
def test_gc_of_a_folder_in_which_nothing_has_run_says_so_and_makes_no_folder(tmp_path, delete):
    with pytest.raises(RecipeError, match="no workflow has run here"):
        gc(str(tmp_path / "nowhere"), delete=delete)
    assert not list(tmp_path.iterdir())
