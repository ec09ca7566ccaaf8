"""The ONNX files of the encoders, run by onnxruntime: the features of the model itself."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument

from pipelines import PretrainedModel
from pipelines.inference.uses import CannotDo
from tests.pipelines.finetune.examples import WORDS, examples
from tests.pipelines.inference.models import builder_of, fine_tuned, pretrained


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["retrieval", pytest.param("pretrained", marks=pytest.mark.exhaustive)]
)
def test_onnxruntime_gives_the_features_of_the_model(tmp_path, kind):
    folder = tmp_path / "export"
    made = pretrained(folder) if kind == "pretrained" else fine_tuned(folder, builder_of(kind))
    model = PretrainedModel.from_pretrained(made, device="cpu")
    image_file, text_file = model.export_onnx(tmp_path / "onnx")
    run_images, run_texts = map(onnxruntime.InferenceSession, (image_file, text_file))
    jpegs = [row["images"][0] for row in examples("linear", 5).to_pylist()]
    for number in (1, 2, 5):
        (found,) = run_images.run(None, {"images": model.processor.images(jpegs[:number]).numpy()})
        np.testing.assert_allclose(found, model.embed_images(jpegs[:number]), atol=2e-5)
    for texts in (["a"], [" ".join(WORDS), "one"], ["red"] * 7, ["a red circle"] * 2):
        ids, padding = (each.numpy() for each in model.processor.texts(texts))
        (found,) = run_texts.run(None, {"ids": ids, "padding": padding})
        np.testing.assert_allclose(found, model.embed_texts(texts), atol=2e-5)
    exact = ids[:, : int((~padding).sum(1).max())]  # a length that no padding gives
    (found,) = run_texts.run(None, {"ids": exact, "padding": np.zeros(exact.shape, bool)})
    np.testing.assert_allclose(found, model.embed_texts(texts), atol=2e-5)


@pytest.mark.parametrize("kind", ["detection", "segmentation"])
def test_a_model_without_such_encoders_is_refused_by_name(tmp_path, kind):
    folder = fine_tuned(tmp_path / "export", builder_of(kind))
    model = PretrainedModel.from_pretrained(folder)
    with pytest.raises(CannotDo) as refused:
        model.export_onnx(tmp_path / "onnx")
    words = f"export_onnx: {folder} is fine-tuned for {kind} and has no features of whole images; "
    assert str(refused.value).startswith(words) and "\n" not in str(refused.value)
    assert not (tmp_path / "onnx").exists()


def test_a_file_in_place_of_the_folder_is_one_sentence(tmp_path):
    model = PretrainedModel.from_pretrained(pretrained(tmp_path / "export"))
    (tmp_path / "onnx").write_text("")
    for path in (tmp_path / "onnx", tmp_path / "onnx" / "below"):
        with pytest.raises(FileExistsError, match=r"is, or lies in, a file; name a new folder"):
            model.export_onnx(path)


def one_ffn(folder: Path) -> Path:
    return pretrained(folder, experts="shared")


def of_the_paper(folder: Path) -> Path:
    return pretrained(folder, attention="shared", fusion_layers=1, subln=False)


def of_short_texts(folder: Path) -> Path:
    return pretrained(folder, max_text_length=3)


def without_a_tokenizer(folder: Path) -> Path:
    return pretrained(folder, width=64, num_heads=1, max_text_length=1022) / "official.pt"


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        one_ffn,
        *(
            pytest.param(make, marks=pytest.mark.exhaustive)
            for make in (of_the_paper, of_short_texts, without_a_tokenizer)
        ),
    ],
)
def test_odd_sizes_are_those_of_torch_or_are_refused(tmp_path, make: Callable[[Path], Path]):
    model = PretrainedModel.from_pretrained(make(tmp_path / "export"), device="cpu")
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx/notes.txt").write_text("kept")
    (tmp_path / "onnx/image_encoder.onnx").write_text("of an earlier export")
    image_file, text_file = model.export_onnx(tmp_path / "onnx")
    assert (tmp_path / "onnx/notes.txt").read_text() == "kept"
    run_images, run_texts = map(onnxruntime.InferenceSession, (image_file, text_file))
    config, rng = model.source.config, np.random.default_rng(0)
    size, longest = config.image_size, config.max_text_length
    for number in (1, 7):
        images = rng.standard_normal((number, 3, size, size), np.float32)
        (found,) = run_images.run(None, {"images": images})
        with torch.no_grad():
            expected = F.normalize(model.image_features(torch.from_numpy(images)), dim=-1)
        np.testing.assert_allclose(found, expected, atol=2e-5)
        for length in (1, 2, longest):
            ids = rng.integers(4, 20, (number, length))
            padding = np.arange(length) >= rng.integers(1, length + 1, (number, 1))
            (found,) = run_texts.run(None, {"ids": ids, "padding": padding})
            with torch.no_grad():
                features = model.text_features(torch.from_numpy(ids), torch.from_numpy(padding))
            np.testing.assert_allclose(found, F.normalize(features, dim=-1), atol=2e-5)
    for other in (size - 1, 2 * size):
        with pytest.raises(
            InvalidArgument, match=f"input: images .*\n.*Got: {other} Expected: {size}"
        ):
            run_images.run(None, {"images": np.zeros((1, 3, other, other), np.float32)})
    ids = np.full((1, longest + 1), 4)
    with pytest.raises(Fail, match=f"{longest} by {longest + 1}"):
        run_texts.run(None, {"ids": ids, "padding": np.zeros(ids.shape, bool)})
