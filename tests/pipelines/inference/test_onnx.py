"""The ONNX files of the encoders, run by onnxruntime: the features of the model itself."""

import numpy as np
import onnxruntime
import pytest

from pipelines import PretrainedModel
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
