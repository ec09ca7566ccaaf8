"""Objects of a loaded model are those of the stage ``predict``, in pixels of the given images."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from orchestration.storage.store import Store
from pipelines import PretrainedModel
from pipelines.finetune.predicting import Predictor
from pipelines.inference.uses import CannotDo
from tests.committing import commit_tables
from tests.pipelines.finetune.examples import examples
from tests.pipelines.inference.models import builder_of, fine_tuned, network_of

NUMBER, BATCH = 7, 3
FP32 = torch.autocast("cpu", torch.bfloat16, enabled=False)


@pytest.fixture(scope="module")
def jpegs() -> list[bytes]:
    return [row["images"][0] for row in examples("detection", NUMBER).to_pylist()]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> PretrainedModel:
    folder = tmp_path_factory.mktemp("model") / "export"
    return PretrainedModel.from_pretrained(fine_tuned(folder, builder_of("detection")))


@pytest.mark.parametrize(
    "changes", [{}, {"masks": False}, {"test_sizes": [32, 64], "test_flip": True}]
)
def test_objects_are_those_of_the_training_code(tmp_path, jpegs, changes):
    builder = builder_of("detection", **changes)
    table = examples("detection", NUMBER)
    rows = commit_tables(Store(tmp_path / "split"), [table], row_group_rows=4)
    predict = Predictor(builder.task, builder, list(builder.numbers), rows, BATCH)
    expected = list(predict(network_of(builder), np.arange(NUMBER), FP32))
    model = PretrainedModel.from_pretrained(fine_tuned(tmp_path / "export", builder))
    found = model.detect(jpegs, batch_size=BATCH)
    assert sum(map(len, found)) == NUMBER * 10
    for some, row in zip(found, expected, strict=True):
        assert [each.label for each in some] == row["labels"]
        assert [each.score for each in some] == row["scores"]
        assert [list(each.box) for each in some] == row["boxes"]
        assert {each.size for each in some} == {tuple(row["size"])} == {(44, 40)}
        assert [each.run_lengths for each in some] == (row["masks"] or [None] * len(some))
        for each in some:
            shape = None if each.mask is None else each.mask.shape
            assert shape == (None if changes.get("masks") is False else (40, 44))


def test_boxes_and_masks_are_in_the_pixels_of_the_image(model, jpegs):
    """An image twice as large has the same view: everything is twice as large."""
    pixels = np.asarray(Image.open(io.BytesIO(jpegs[0])))
    doubled = np.repeat(np.repeat(pixels, 2, 0), 2, 1)
    (small,), (large,) = model.detect([pixels]), model.detect([doubled])
    assert [each.label for each in small] == [each.label for each in large]
    for one, two in zip(small, large, strict=True):
        np.testing.assert_allclose(np.array(two.box), 2 * np.array(one.box), atol=0.2)
        assert two.size == (88, 80) and two.mask.shape == (80, 88)
        left, top, width, height = one.box
        rows, columns = np.nonzero(one.mask)
        if len(rows):
            assert left - 1 <= columns.min() and columns.max() <= left + width
            assert top - 1 <= rows.min() and rows.max() <= top + height


def test_an_image_on_its_side_is_turned_before_boxes_are_measured(model):
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 30), "gray").save(file, "PNG", exif=exif)
    (found,) = model.detect([file.getvalue()])
    assert {each.size for each in found} == {(30, 60)}


def test_the_batch_and_the_kind_of_input_change_nothing(model, jpegs, tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpegs[0])
    first, *_ = expected = model.detect(jpegs, batch_size=BATCH)
    for given in (tmp_path / "a.jpg", Image.open(tmp_path / "a.jpg")):
        (found,) = model.detect([given])
        np.testing.assert_allclose([e.box for e in found], [e.box for e in first], atol=1e-3)
    assert [len(some) for some in model.detect(jpegs)] == [len(some) for some in expected]
    assert model.detect([]) == []


def test_a_smallest_score_leaves_out_what_is_below(model, jpegs):
    everything = model.detect(jpegs)
    scores = sorted(each.score for some in everything for each in some)
    limit = scores[len(scores) // 2]
    found = model.detect(jpegs, min_score=limit)
    assert found == [[each for each in some if each.score > limit] for some in everything]
    assert model.task.choice.min_score == 0
    for wrong in (-0.1, 1, float("nan")):
        with pytest.raises(ValueError, match=r"min_score is .*; give 0 or more, less than 1"):
            model.detect(jpegs, min_score=wrong)
    with pytest.raises(ValueError, match="batch_size is 0; it must be 1 or more"):
        model.detect(jpegs, batch_size=0)


def test_a_detector_gives_no_features_of_whole_images(model, jpegs):
    assert model.methods == ("detect",)
    words = "embed_images: .* is fine-tuned for detection and has no features of whole images"
    with pytest.raises(CannotDo, match=words):
        model.embed_images(jpegs)


def test_weights_that_give_no_finite_numbers_give_no_objects(tmp_path, jpegs):
    folder = fine_tuned(tmp_path / "export", builder_of("detection"))
    state = load_file(folder / "model.safetensors")
    save_file({n: torch.full_like(t, 1e30) for n, t in state.items()}, folder / "model.safetensors")
    model = PretrainedModel.from_pretrained(folder)
    with pytest.raises(CannotDo, match="are not finite; check the weights"):
        model.detect(jpegs[:1])
