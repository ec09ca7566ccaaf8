"""The commands: what they print, how they end, and the sentences of their errors."""

import base64
import json
import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from model.finetuning.generation import Decoding
from orchestration.errors import RecipeError
from pipelines import PretrainedModel
from pipelines.cli import app
from pipelines.finetune.example_builder import ExampleBuilder
from pipelines.finetune.texts import TextEncoder
from tests.model.networks import RELEASED
from tests.pipelines.apply import drawn
from tests.pipelines.apply.committed import recipe_of, run
from tests.pipelines.finetune.examples import LABELS, text_tokenizer
from tests.pipelines.inference.models import builder_of, config_of, fine_tuned


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("commands")
    for kind in ("sentences", "retrieval", "vqa", "detection", "segmentation", "captioning"):
        fine_tuned(folder / kind / "export", builder_of(kind))
    drawn.write_images(folder / "images", 3)
    return folder


def called(*words: object, fails: int = 0) -> str:
    done = CliRunner().invoke(app, list(map(str, words)))
    if isinstance(done.exception, RecipeError):
        return str(done.exception)
    assert done.exit_code == fails, done.output
    return done.output


def test_answers_are_a_table_of_the_inputs(work):
    question = "one red circle"
    shown = called(
        "answer",
        "--model",
        work / "vqa/export",
        work / "images",
        "--question",
        question,
        "--top",
        1,
    )
    model = PretrainedModel.from_pretrained(work / "vqa/export")
    paths = sorted((work / "images").iterdir())
    for (best,) in model.answer(paths, [question] * 3):
        assert f"{best.label} {best.score:.3f}" in shown


def test_json_is_an_object_per_input_and_bad_inputs_are_named_apart(work, tmp_path):
    (tmp_path / "page.jpg").write_bytes(b"<html>")
    words = ("embed", "--model", work / "retrieval/export", work / "images", tmp_path / "page.jpg")
    done = CliRunner().invoke(app, [*map(str, words), "--text", "a circle", "--json"])
    assert done.exit_code == 1
    rows = list(map(json.loads, done.stdout.splitlines()))
    assert [row["text"] for row in rows] == [None, None, None, "a circle"]
    assert all(len(row["features"]) == RELEASED.width for row in rows)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{tmp_path}/page.jpg: not_an_image: ")


def test_pairs_of_texts_are_classified(work):
    words = ("classify", "--model", work / "sentences/export", "--text", "red", "--text", "blue")
    words = (*words, "--second-text", " a  circle", "--second-text", "left")
    rows = list(map(json.loads, called(*words, "--json").splitlines()))
    model = PretrainedModel.from_pretrained(work / "sentences/export")
    expected = model.classify([("red", "a circle"), ("blue", "left")])
    assert [row["labels"] for row in rows] == [[c.label for c in each] for each in expected]
    assert "red | a circle" in called(*words)
    assert "2 --text and 1 --second-text" in called(*words[:-2])
    assert "--second-text is empty; give a text" in called(*words[:-1], " ")


def test_a_sentence_about_two_images_is_classified(work):
    export = fine_tuned(work / "nlvr2/export", builder_of("nlvr2"))
    first, second = work / "images/000.png", work / "images/001.png"
    words = ("classify", "--model", export, first, "--second-image", second, "--text", "one")
    (row,) = map(json.loads, called(*words, "--json").splitlines())
    (best,) = PretrainedModel.from_pretrained(export).classify_pairs([(first, second)], ["one"])
    assert (row["labels"][0], row["second_path"]) == (best[0].label, str(second))
    assert "000.png + " in called(*words) and "001.png" in called(*words)
    for wrong in (work / "images", work / "no.png"):
        assert f"{wrong}: no image file; a pair is two" in called(*words[:5], wrong, *words[6:])


@pytest.mark.parametrize(
    ("words", "decoding"),
    [
        ([], None),
        (["--beams", 1, "--length-penalty", 0], Decoding(1, 0.0)),
        (["--beams", 2, "--max-length", 6], Decoding(2, max_length=6)),
        (["--temperature", 1.5, "--top-p", 0.8, "--seed", 3], Decoding(1, 0.6, 64, 1.5, 0.8)),
    ],
)
def test_captions_are_searched_or_drawn_as_the_options_say(work, words, decoding):
    export, paths = work / "captioning/export", sorted((work / "images").iterdir())
    shown = called("caption", "--model", export, work / "images", *words, "--json")
    model = PretrainedModel.from_pretrained(export)
    expected = model.caption(paths, decoding, seed=3, ids=list(map(str, paths)))
    assert [json.loads(line)["caption"] for line in shown.splitlines()] == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seed", 3], "--seed has no effect without --temperature; give both"),
        (["--top-p", 0.5], "top_p is 0.5 without a temperature; give both"),
        (["--temperature", 0.5, "--beams", 3], "sampling draws one caption for each image"),
        (["--temperature", 0], "apply.decoding.temperature"),
        (["--beams", 0], "apply.decoding.num_beams"),
        (["--max-length", 2], "apply.decoding.max_length"),
    ],
)
def test_decodings_that_cannot_be_are_one_sentence(work, words, message):
    given = ("caption", "--model", work / "captioning/export", work / "images", *words)
    assert message in called(*given)


def test_objects_are_printed_with_their_boxes(work):
    path = work / "images/001.png"
    words = ("detect", "--model", work / "detection/export", path)
    (row,) = map(json.loads, called(*words, "--json").splitlines())
    model = PretrainedModel.from_pretrained(work / "detection/export")
    (found,) = model.detect([path])
    assert row["labels"] == [each.label for each in found]
    assert row["masks"] == [each.run_lengths for each in found]
    np.testing.assert_allclose(row["boxes"], [each.box for each in found])
    shown = " ".join(called(*words).split())
    best = found[0]
    left, top, width, height = (round(side) for side in best.box)
    assert f"{best.label} {best.score:.3f} at" in shown and "5 more" in shown
    assert f"{left},{top} {width}x{height}" in shown
    assert "no object" in called(*words, "--min-score", "0.999")
    assert "less than 1" in called(*words, "--min-score", 1)


def test_classes_of_pixels_are_printed_with_their_parts(work):
    path = work / "images/001.png"
    words = ("segment", "--model", work / "segmentation/export", path)
    (row,) = map(json.loads, called(*words, "--json").splitlines())
    (found,) = PretrainedModel.from_pretrained(work / "segmentation/export").segment([path])
    assert base64.b64decode(row["label_map"]) == found.png
    assert f"{found.labels[0]} {found.fractions[0]:.1%}" in called(*words)


def test_search_prints_paths_and_scores(work):
    recipe = recipe_of("embed", work / "retrieval/export", work / "images")
    run(recipe, work / "features")
    shown = called(
        *("search", "--model", work / "retrieval/export", "--in", work / "features"),
        *("--image", work / "images/001.png", "--top", 2, "--json"),
    )
    first, second = map(json.loads, shown.splitlines())
    assert first["path"] == str(work / "images/001.png")
    assert first["score"] == pytest.approx(1, abs=1e-5)
    assert second["score"] < first["score"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["embed"], "beit3 embed: no inputs; name images, folders of images or Parquet files"),
        (["embed", "nowhere.jpg"], "nowhere.jpg: no such file"),
        (["answer", "images"], "beit3 answer: no question; give --question"),
        (["caption", "images"], "fine-tuned for vqa and has no head for captions"),
        (["embed", "images", "--set", "apply.batch=3"], "apply.batch: unknown key; did you mean"),
        (["embed", "images", "--workdir", "images/out"], "the workdir lies in the inputs"),
        (["search", "--in", "images"], "search: give a text or --image FILE, one of the two"),
    ],
)
def test_a_command_that_cannot_run_is_one_message(work, monkeypatch, words, message):
    monkeypatch.chdir(work)
    assert message in called(words[0], "--model", "vqa/export", *words[1:])


@pytest.mark.parametrize(
    "words",
    [
        ["embed", ""],
        ["embed", "images", " "],
        ["embed", "--texts", ""],
        ["answer", "images", "--question", "what?", "--labels", ""],
        ["search", "--in", "images", "--image", ""],
    ],
)
def test_an_empty_path_is_not_the_current_folder(work, monkeypatch, words):
    monkeypatch.chdir(work)
    shown = called(words[0], "--model", "vqa/export", *words[1:], fails=2)
    assert "the path is empty; name a file or folder" in " ".join(shown.split())


@pytest.mark.parametrize("option", ["--image-column", "--text-column", "--second-text-column"])
def test_an_empty_column_is_one_sentence(work, option):
    words = ("classify", "--model", work / "sentences/export", work / "images", option, "")
    assert "the name is empty; name a column" in " ".join(called(*words, fails=2).split())


def test_a_file_whose_name_is_not_utf_8_is_read_in_its_folder(work, tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    path.write_bytes(drawn.image_bytes(3))
    words = ("embed", "--model", work / "retrieval/export")
    shown = called(*words, path)
    assert shown == (
        f"{tmp_path}/caf\\xe9.png: the name is not UTF-8; rename it, or name the folder that it "
        "lies in"
    )
    assert json.loads(called(*words, tmp_path, "--json"))["id"] == f"{tmp_path}/caf\\xe9.png"


def test_labels_beside_an_export_are_refused(work, tmp_path):
    (tmp_path / "labels.txt").write_text("a\nb\n")
    words = ("--model", work / "vqa/export", work / "images", "--question", "one")
    shown = called("answer", *words, "--labels", tmp_path / "labels.txt")
    assert shown.endswith("it has its own labels; leave out labels=, or --labels of a command")


def test_an_empty_model_is_not_the_current_folder(work, monkeypatch):
    monkeypatch.chdir(work / "vqa" / "export")
    assert "'' is no name of a model" in called("embed", "--model", "", "--text", "a")


def test_a_model_that_is_not_there_is_one_message(work, monkeypatch):
    monkeypatch.chdir(work)
    assert "nomodel" in called("embed", "--model", "nomodel", "images")


def test_a_released_file_is_used_with_its_vocabulary_and_labels(work):
    task = builder_of("vqa").task
    config = config_of(width=64, num_heads=1, max_text_length=1022, final_norm=task.final_norm)
    texts = TextEncoder(text_tokenizer(), config.max_text_length)
    builder = ExampleBuilder(task, config, texts, LABELS["vqa"])
    export = fine_tuned(work / "wide/export", builder)
    asked = (work / "images", "--question", "one red circle", "--json")
    whole = called("answer", "--model", export, *asked)
    files = ("--tokenizer", work / "wide/spm.model", "--labels", export / "labels.txt")
    alone = called("answer", "--model", export / "official.pth", *files, *asked)
    rows = (map(json.loads, each.splitlines()) for each in (whole, alone))
    for one, other in zip(*rows, strict=True):
        assert one["answers"] == other["answers"]
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-5)
