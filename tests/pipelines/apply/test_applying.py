"""Operations on rows: as a stage and in one process they give what the model itself gives."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faster_coco_eval.core import mask as masks
from PIL import Image
from pydantic import ValidationError

from model.finetuning.generation import Decoding
from orchestration import Dataset
from orchestration.errors import RecipeError
from orchestration.slices import Slice
from orchestration.storage.store import Store
from pipelines import PretrainedModel
from pipelines.apply.applying import quarantined
from pipelines.apply.in_process import json_line, results
from pipelines.apply.inputs import Location
from pipelines.apply.model_location import digest_of, located
from pipelines.apply.operations import OPERATIONS, Batch
from pipelines.apply.params import ApplyParams
from pipelines.workflows.apply import build_workflow
from tests.pipelines.apply import drawn
from tests.pipelines.apply.committed import recipe_of, rejects_of, run
from tests.pipelines.inference.models import builder_of, fine_tuned, pretrained


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    kinds = ("retrieval", "vqa", "linear", "sentences", "detection", "segmentation")
    made = {kind: fine_tuned(folder / kind / "export", builder_of(kind)) for kind in kinds}
    return made | {"pretrained": pretrained(folder / "pretrained" / "export")}


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    return drawn.write_images(tmp_path / "images", 11)


def with_bad_files(folder: Path) -> dict[str, str]:
    """Add files that are no images; return their reasons by path."""
    for name, (content, _) in drawn.BAD_FILES.items():
        (folder / name).write_bytes(content)
    return {str(folder / name): reason for name, (_, reason) in drawn.BAD_FILES.items()}


def test_features_are_those_of_the_model_and_bad_files_are_rejects(tmp_path, models, images):
    reasons = with_bad_files(tmp_path / "images")
    recipe = recipe_of(
        "embed", models["retrieval"], tmp_path / "images", apply__slice_rows=4, apply__batch_size=3
    )
    output = run(recipe, tmp_path / "work")
    rows = output.read().to_pylist()
    assert [row["path"] for row in rows] == list(map(str, images))
    assert {r["sample_id"]: r["reason"] for r in rejects_of(output).to_pylist()} == reasons
    expected = PretrainedModel.from_pretrained(models["retrieval"]).embed_images(images)
    found = np.array([row["features"] for row in rows], np.float32)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("operation", ["embed", "answer", "classify", "detect", "segment"])
def test_one_process_gives_the_rows_of_the_workflow(tmp_path, models, images, operation):
    kind = {
        "embed": "retrieval", "answer": "vqa", "classify": "linear", "detect": "detection",
        "segment": "segmentation",
    }[operation]  # fmt: skip
    with_bad_files(tmp_path / "images")
    more = {"question": "one red circle"} if operation == "answer" else {}
    recipe = recipe_of(operation, models[kind], tmp_path / "images", apply__slice_rows=32, **more)
    output = run(recipe, tmp_path / "work")
    found = list(results(operation, recipe.inputs, recipe.apply))
    rows = [row for row, problem in found if problem is None]
    assert pa.Table.from_pylist(rows, output.read().schema).equals(output.read())
    rejected = {(row["id"], str(problem)) for row, problem in found if problem is not None}
    assert rejected == {
        (row["sample_id"], f"{row['reason']}: {row['detail']}")
        for row in rejects_of(output).to_pylist()
    }
    assert all(json.loads(json_line(row))["id"] == row["id"] for row in rows)


def test_images_and_texts_are_embedded_in_their_order(tmp_path, models, images):
    (tmp_path / "t.txt").write_text("one red circle\n\nblue square\n")
    recipe = recipe_of(
        "embed",
        models["retrieval"],
        images[0],
        text_files=[{"path": str(tmp_path / "t.txt"), "content": str(tmp_path / "t.txt")}],
        texts=["a circle"],
    )
    rows = run(recipe, tmp_path / "work").read().to_pylist()
    assert [row["text"] for row in rows] == [None, "one red circle", "blue square", "a circle"]
    model = PretrainedModel.from_pretrained(models["retrieval"])
    expected = model.embed_texts(["one red circle", "blue square", "a circle"])
    found = np.array([row["features"] for row in rows[1:]])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_questions_of_a_parquet_file_are_answered_row_by_row(tmp_path, models):
    data = [drawn.image_bytes(i) for i in range(5)]
    asked = ["one", "a red circle", "left of", "blue", "square"]
    table = pa.table({"image": [*data, None], "q": [*asked, "without an image"]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    recipe = recipe_of("answer", models["vqa"], tmp_path / "a.parquet", text_column="q")
    output = run(recipe, tmp_path / "work")
    model = PretrainedModel.from_pretrained(models["vqa"])
    expected = model.answer(data, asked, top_k=5)
    rows = output.read().to_pylist()
    assert [row["answers"] for row in rows] == [[c.label for c in each] for each in expected]
    (reject,) = rejects_of(output).to_pylist()
    assert (reject["sample_id"], reject["reason"]) == (f"{tmp_path}/a.parquet:6", "missing_file")


def test_texts_are_classified_by_a_model_of_texts(tmp_path, models):
    recipe = recipe_of("classify", models["sentences"], texts=["one circle", "red"])
    rows = run(recipe, tmp_path / "work").read().to_pylist()
    model = PretrainedModel.from_pretrained(models["sentences"])
    expected = model.classify(["one circle", "red"], top_k=5)
    assert [row["labels"] for row in rows] == [[c.label for c in each] for each in expected]


def test_pairs_of_texts_are_read_together(tmp_path, models):
    given, seconds = ["one circle", "red"], ["blue", "a square"]
    pairs = list(zip(given, seconds, strict=True))
    model = PretrainedModel.from_pretrained(models["sentences"])
    expected, alone = model.classify(pairs, top_k=5), model.classify(given, top_k=5)
    table = pa.table({"a": [*given, "left", "left"], "b": [*seconds, " ", None]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=3)
    columns = {"image_column": None, "text_column": "a", "second_text_column": "b"}
    recipes = [
        recipe_of("classify", models["sentences"], texts=given, second_texts=seconds),
        recipe_of("classify", models["sentences"], tmp_path / "a.parquet", **columns),
    ]
    for i, recipe in enumerate(recipes):
        rows = run(recipe, tmp_path / f"work{i}").read().to_pylist()
        assert [(row["text"], row["second_text"]) for row in rows] == pairs
        for row, best, other in zip(rows, expected, alone, strict=True):
            assert row["labels"] == [each.label for each in best]
            np.testing.assert_allclose(row["scores"], [each.score for each in best], atol=1e-5)
            assert abs(row["scores"][0] - other[0].score) > 1e-5
    found = results("classify", recipes[1].inputs, recipes[1].apply)
    bad = {row["id"]: str(problem) for row, problem in found if problem is not None}
    names = [f"{tmp_path}/a.parquet:{number}" for number in (3, 4)]
    assert bad == dict.fromkeys(names, "empty_text: the second text is empty")


def test_sentences_are_judged_about_two_images(tmp_path, images):
    export = fine_tuned(tmp_path / "nlvr2" / "export", builder_of("nlvr2"))
    first, second, said = images[:3], images[3:6], ["one red circle", "two", "a blue square"]
    model = PretrainedModel.from_pretrained(export)
    expected = model.classify_pairs(list(zip(first, second, strict=True)), said, top_k=5)
    (tmp_path / "page.jpg").write_bytes(b"<html>")
    columns = {
        "left": [*(path.read_bytes() for path in first), first[0].read_bytes(), b"x"],
        "right": [*(f"images/{path.name}" for path in second), "page.jpg", None],
        "said": [*said, "three", "four"],
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", row_group_size=2)
    named = dict(zip(["image_column", "second_image_column", "text_column"], columns, strict=True))
    recipes = [
        recipe_of(
            "classify", export, *first, texts=said,
            second_images=[Location.of(path).model_dump() for path in second],
        ),
        recipe_of("classify", export, tmp_path / "a.parquet", **named),
    ]  # fmt: skip
    for i, recipe in enumerate(recipes):
        rows = run(recipe, tmp_path / f"work{i}").read().to_pylist()
        assert [(row["second_path"], row["text"]) for row in rows] == list(
            zip(map(str, second), said, strict=True)
        )
        for row, best in zip(rows, expected, strict=True):
            assert row["labels"] == [each.label for each in best]
            np.testing.assert_allclose(row["scores"], [each.score for each in best], atol=1e-5)
    found = results("classify", recipe.inputs, recipe.apply)
    bad = {row["id"][-2:]: str(problem) for row, problem in found if problem is not None}
    assert bad[":4"].startswith("not_an_image: second image: ")
    assert bad[":5"] == "missing_file: column right names no image: None" and len(bad) == 2
    with pytest.raises(RecipeError, match="takes two images with a sentence; give --second-image"):
        list(results("classify", recipe_of("classify", export, *first).inputs, recipe.apply))


@pytest.mark.parametrize(
    ("operation", "kind", "given", "words"),
    [
        ("classify", "vqa", {"texts": ["a"], "second_images": 1}, "head for sentences about two"),
        ("caption", "vqa", {}, "fine-tuned for vqa and has no head for captions; the recipe"),
        ("answer", "pretrained", {"question": "x"}, "has no head for questions about an image"),
        ("classify", "retrieval", {}, "has no head for classes"),
        ("classify", "sentences", {}, "and takes no images; name texts; of a folder"),
        ("detect", "linear", {}, "has no head for objects; the recipe finetune/coco-detection"),
        ("segment", "detection", {}, "has no head for classes of pixels; the recipe finetune/ade"),
        ("embed", "detection", {}, "has no features of whole images"),
    ],
)
def test_a_model_without_the_head_is_one_sentence_before_anything_runs(
    tmp_path, models, images, operation, kind, given, words
):
    if "second_images" in given:
        images = images[:1]
        given = given | {"second_images": [Location.of(images[0]).model_dump()]}
    recipe = recipe_of(operation, models[kind], *images, **given)
    with pytest.raises(RecipeError, match=words):
        list(results(operation, recipe.inputs, recipe.apply))
    workflow = build_workflow(recipe)
    assert words.split(";")[0] in str(workflow.stages[-1].requires())


@pytest.mark.parametrize(
    ("operation", "given", "words"),
    [
        ("embed", {"question": "why?"}, "a question is given, but none is taken"),
        ("embed", {"text_column": "a"}, "--image-column and --text-column exclude each other"),
        ("caption", {"texts": ["a"]}, "only images are taken"),
        ("answer", {}, "no question; give --question, or --question-column"),
        (
            "embed",
            {"texts": ["a"], "second_texts": ["b"]},
            "second texts are given, but only classify takes pairs",
        ),
        (
            "classify",
            {"texts": ["a"], "second_texts": ["b", "c"]},
            "1 --text and 2 --second-text; give one of the second for each of the first",
        ),
        ("classify", {"second_text_column": "b"}, "name the first with --text-column"),
        (
            "classify",
            {"image_column": None, "text_column": "b", "second_text_column": "b"},
            "column b is named for both texts of a pair; name two columns",
        ),
        ("embed", {"second_image_column": "b"}, "only classify takes pairs of images"),
        ("classify", {"second_image_column": "b"}, "or three columns of Parquet files: --image-"),
        ("classify", {"second_image_column": "b", "text_column": "b"}, "or three columns"),
        (
            "classify",
            {"second_images": [{"path": "/b", "content": "/b"}], "texts": ["a", "b"]},
            "a pair of images is an image file, a --second-image and a --text, one of each",
        ),
        (
            "embed",
            {"apply__min_score": 0.3},
            "apply.min_score has no effect on embed; leave it out",
        ),
        (
            "answer",
            {"question": "a", "apply__decoding": {"num_beams": 1}},
            "has no effect on answer",
        ),
        ("detect", {"apply__num_best": 3}, "apply.num_best has no effect on detect; leave it out"),
    ],
)
def test_inputs_that_do_not_fit_the_operation_are_refused(
    tmp_path, models, operation, given, words
):
    with pytest.raises(ValidationError, match=words):
        recipe_of(operation, models["vqa"], tmp_path, **given)


def test_no_inputs_are_refused(models):
    with pytest.raises(ValidationError, match="no inputs; name images"):
        recipe_of("embed", models["vqa"])


def test_the_content_of_model_and_inputs_makes_the_result_another_one(tmp_path, models, images):
    def fingerprints(model: Path, *images: Path) -> list[str]:
        recipe = recipe_of("classify", model, *images)
        return [p.fingerprint for p in build_workflow(recipe).plan(Store(tmp_path / "work"))]

    before = fingerprints(models["linear"], *images)
    copy = tmp_path / "copy"
    shutil.copytree(models["linear"], copy)
    assert fingerprints(copy, *images) == before
    task = json.loads((copy / "task.json").read_text())
    (copy / "task.json").write_text(json.dumps(task | {"metrics": {"dev/accuracy": 0.9}}))
    assert fingerprints(copy, *images) == before, "metrics change no prediction"
    labels = (copy / "labels.txt").read_text()
    (copy / "labels.txt").write_text(labels.replace('"0"', '"zero"'))
    assert fingerprints(copy, *images) != before
    images[3].write_bytes(drawn.image_bytes(99))
    assert fingerprints(models["linear"], *images) != before


def test_a_workdir_stands_for_its_export(tmp_path, models):
    assert located(str(models["vqa"])) == str(models["vqa"])
    with pytest.raises(RecipeError, match="nowhere"):
        located(str(tmp_path / "nowhere"))
    assert digest_of(str(models["vqa"])) != digest_of(str(models["linear"]))


def test_rows_that_end_their_worker_are_rejects(tmp_path, models, images):
    recipe = recipe_of("embed", models["retrieval"], *images)
    run(recipe, tmp_path / "work")
    (folder,) = (tmp_path / "work" / "inputs").iterdir()
    listed = Dataset.open(Store(folder))
    output = quarantined(listed, Slice("000000", {"start": 2, "stop": 4}), "SIGSEGV")
    found = output.tables["rejects"].to_pylist()
    assert [row["sample_id"] for row in found] == [str(path) for path in images[2:4]]
    assert {row["reason"] for row in found} == {"killed_worker"}


def test_objects_are_those_of_the_model_in_the_pixels_of_each_image(tmp_path, models):
    """Images of several sizes, one of which is stored on its side."""
    (tmp_path / "images").mkdir()
    sizes = [(40, 30), (64, 20), (25, 50)]
    for i, size in enumerate(sizes):
        (tmp_path / f"images/{i}.png").write_bytes(drawn.image_bytes(i, size=size))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(tmp_path / "images/0.png").save(tmp_path / "images/3.png", exif=exif)
    model = PretrainedModel.from_pretrained(models["detection"])
    expected = model.detect(sorted((tmp_path / "images").iterdir()))
    scores = sorted(each.score for some in expected for each in some)
    limit = scores[len(scores) // 2]
    for least in (None, limit):
        recipe = recipe_of(
            "detect", models["detection"], tmp_path / "images", apply__min_score=least,
            apply__batch_size=2,
        )  # fmt: skip
        rows = run(recipe, tmp_path / f"work-{least}").read().to_pylist()
        assert [row["size"] for row in rows] == [[40, 30], [64, 20], [25, 50], [30, 40]]
        for row, some in zip(rows, expected, strict=True):
            kept = [each for each in some if least is None or each.score > least]
            assert row["labels"] == [each.label for each in kept]
            np.testing.assert_allclose(row["scores"], [each.score for each in kept], atol=1e-6)
            for box, each in zip(row["boxes"], kept, strict=True):
                np.testing.assert_allclose(box, each.box, atol=1e-3)
            for text, each in zip(row["masks"], kept, strict=True):
                width, height = row["size"]
                found = masks.decode({"counts": text.encode(), "size": [height, width]})
                assert (found == each.mask).mean() > 0.999


def test_label_maps_are_those_of_the_model_in_the_size_of_each_image(tmp_path, models):
    (tmp_path / "images").mkdir()
    sizes = [(40, 30), (64, 20), (25, 50)]
    for i, size in enumerate(sizes):
        (tmp_path / f"images/{i}.png").write_bytes(drawn.image_bytes(i, size=size))
    recipe = recipe_of("segment", models["segmentation"], tmp_path / "images")
    rows = run(recipe, tmp_path / "work").read().to_pylist()
    model = PretrainedModel.from_pretrained(models["segmentation"])
    expected = model.segment(sorted((tmp_path / "images").iterdir()))
    for row, size, each in zip(rows, sizes, expected, strict=True):
        shown = np.asarray(Image.open(io.BytesIO(row["label_map"])))
        assert tuple(row["size"]) == size == shown.shape[::-1]
        assert row["labels"] == list(each.labels) and (shown == each.label_map).all()
        parts = np.bincount(shown.ravel(), minlength=len(each.labels)) / shown.size
        np.testing.assert_allclose(row["fractions"], parts, atol=1e-6)


def test_a_detector_of_boxes_alone_has_no_masks(tmp_path, images):
    builder = builder_of("detection", masks=False)
    recipe = recipe_of("detect", fine_tuned(tmp_path / "export", builder), images[0])
    (row,) = run(recipe, tmp_path / "work").read().to_pylist()
    assert row["masks"] is None and len(row["boxes"]) == len(row["labels"]) > 0


def test_a_caption_is_drawn_by_seed_and_row_not_by_the_batch(tmp_path, images):
    export = fine_tuned(tmp_path / "export", builder_of("captioning"))

    def captions(number: int, *paths: Path, **changes: object) -> dict[str, str]:
        drawn = {"num_beams": 1, "temperature": 1.5, "max_length": 12, "seed": 4} | changes
        recipe = recipe_of(
            "caption", export, *paths, apply__decoding=drawn, apply__batch_size=number,
            apply__slice_rows=4,
        )  # fmt: skip
        rows = run(recipe, tmp_path / f"work-{number}-{len(paths)}-{changes}").read().to_pylist()
        return {row["id"]: row["caption"] for row in rows}

    found = captions(32, *images)
    assert captions(3, *images[::-1]) == found
    assert captions(1, images[7]) == {str(images[7]): found[str(images[7])]}
    assert captions(32, *images, seed=5) != found
    expected = PretrainedModel.from_pretrained(export).caption(
        images, Decoding(1, max_length=12, temperature=1.5), seed=4, ids=list(map(str, images))
    )
    assert [found[str(path)] for path in images] == expected


class Captioner:
    """Stands for a model with a head for captions."""

    methods = ("caption",)

    def caption(self, images: list[np.ndarray], *_: object, **__: object) -> list[str]:
        return [f"an image of {len(image)} pixels" for image in images]


def test_captions_are_the_column_of_their_operation():
    views = [np.zeros((size, size, 3), np.uint8) for size in (4, 6)]
    batch = Batch(["a", "b"], views, None)
    found = OPERATIONS["caption"].apply(Captioner(), batch, ApplyParams(model="m"))
    assert found == {"caption": ["an image of 4 pixels", "an image of 6 pixels"]}
