"""Classes of pixels of a loaded model are those of ``predict``, in the size of the given images."""

import io
import tracemalloc

import cv2
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
from tests.pipelines.finetune.examples import LABELS, examples
from tests.pipelines.inference.models import builder_of, fine_tuned, network_of

NUMBER, BATCH = 7, 3
FP32 = torch.autocast("cpu", torch.bfloat16, enabled=False)


@pytest.fixture(scope="module")
def jpegs() -> list[bytes]:
    return [row["images"][0] for row in examples("segmentation", NUMBER).to_pylist()]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> PretrainedModel:
    folder = tmp_path_factory.mktemp("model") / "export"
    return PretrainedModel.from_pretrained(fine_tuned(folder, builder_of("segmentation")))


@pytest.mark.parametrize("changes", [{}, {"test_scales": (1.0, 1.5), "test_flip": True}])
def test_classes_are_those_of_the_training_code(tmp_path, jpegs, changes):
    builder = builder_of("segmentation", **changes)
    table = examples("segmentation", NUMBER)
    rows = commit_tables(Store(tmp_path / "split"), [table], row_group_rows=4)
    predict = Predictor(builder.task, builder, list(builder.numbers), rows, BATCH)
    expected = list(predict(network_of(builder), np.arange(NUMBER), FP32))
    model = PretrainedModel.from_pretrained(fine_tuned(tmp_path / "export", builder))
    found = model.segment(jpegs, batch_size=BATCH)
    for each, row in zip(found, expected, strict=True):
        assert list(each.labels) == row["labels"] and set(each.labels) <= {*LABELS["segmentation"]}
        assert list(each.fractions) == row["scores"]
        assert each.png == row["label_map"]
    assert len({name for each in found for name in each.labels}) > 1


def test_the_label_map_has_the_size_of_the_image_and_its_parts_are_counted(model):
    rng = np.random.default_rng(0)
    for width, height in [(44, 40), (90, 31), (20, 200), (1, 1)]:
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        (found,) = model.segment([pixels])
        shown = np.asarray(Image.open(io.BytesIO(found.png)))
        assert shown.shape == (height, width) and (shown == found.label_map).all()
        parts = [(shown == i).mean() for i in range(len(found.labels))]
        np.testing.assert_allclose(parts, found.fractions)
        assert sum(parts) == pytest.approx(1) and parts == sorted(parts, reverse=True)


def test_a_larger_image_has_the_same_classes_at_the_same_places(model, jpegs):
    pixels = cv2.GaussianBlur(np.asarray(Image.open(io.BytesIO(jpegs[0]))), (0, 0), 4)
    large = cv2.resize(pixels, (176, 160), interpolation=cv2.INTER_LINEAR)
    one, other = model.segment([pixels, large])
    names = [np.array(each.labels)[each.label_map] for each in (one, other)]
    assert (names[0] == names[1][2::4, 2::4]).mean() > 0.9


def test_an_image_on_its_side_is_turned_before_its_pixels_are_named(model):
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 30), "gray").save(file, "PNG", exif=exif)
    (found,) = model.segment([file.getvalue()])
    assert found.label_map.shape == (60, 30)


def test_the_batch_and_the_kind_of_input_change_nothing(model, jpegs, tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpegs[0])
    expected = model.segment(jpegs, batch_size=BATCH)
    assert model.segment(jpegs, batch_size=1) == expected
    for given in (tmp_path / "a.jpg", Image.open(tmp_path / "a.jpg")):
        assert model.segment([given]) == expected[:1]
    assert model.segment([]) == []
    with pytest.raises(ValueError, match="batch_size is 0; it must be 1 or more"):
        model.segment(jpegs, batch_size=0)


def test_a_wide_and_a_tall_image_are_not_padded_to_the_square_of_both(model):
    wide = np.zeros((8, 500, 3), np.uint8)
    tracemalloc.start()
    found = model.segment([wide, wide.transpose(1, 0, 2)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [each.label_map.shape for each in found] == [(8, 500), (500, 8)]
    shorter = model.source.config.image_size
    assert peak < 3 * (shorter * 500 / 8) ** 2 / 2  # bytes of one padded image, of NumPy alone


def test_a_segmenter_does_nothing_else(model, jpegs):
    assert model.methods == ("segment",)
    with pytest.raises(CannotDo, match="for segmentation and has no features of whole images"):
        model.embed_images(jpegs)


def test_weights_that_give_no_finite_numbers_give_no_classes(tmp_path, jpegs):
    folder = fine_tuned(tmp_path / "export", builder_of("segmentation"))
    state = load_file(folder / "model.safetensors")
    save_file({n: torch.full_like(t, 1e30) for n, t in state.items()}, folder / "model.safetensors")
    model = PretrainedModel.from_pretrained(folder)
    with pytest.raises(CannotDo, match="scores of the pixels are not finite; check the weights"):
        model.segment(jpegs[:1])
