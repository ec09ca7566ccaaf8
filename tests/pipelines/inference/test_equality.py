"""A loaded model says exactly what the stages ``predict`` and ``evaluate`` say of the same rows.

The pixels of files that are no stored images are in ``test_processor.py``.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from model.finetuning.generation import Decoding, generate
from model.finetuning.released import to_released
from orchestration.storage.store import Store
from pipelines import PretrainedModel
from pipelines.finetune.predicting import Predictor
from pipelines.finetune.views import EvaluationViews
from tests.committing import commit_tables
from tests.model.finetuning.test_task_networks import MAKERS, built
from tests.model.networks import network
from tests.pipelines.finetune.examples import TASKS, examples
from tests.pipelines.finetune.jobs import vocabulary
from tests.pipelines.inference.models import (
    KINDS,
    builder_of,
    config_of,
    fine_tuned,
    network_of,
    pretrained,
)

NUMBER, BATCH = 11, 4
FP32 = torch.autocast("cpu", torch.bfloat16, enabled=False)


def predicted(kind: str, folder: Path, batch_size: int, **task: object) -> list[dict]:
    """What the training code predicts for the drawn examples of a task."""
    builder = builder_of(kind, **task)
    rows = commit_tables(Store(folder / "split"), [examples(kind, NUMBER)], row_group_rows=5)
    predict = Predictor(builder.task, builder, list(builder.numbers), rows, batch_size)
    return list(predict(network_of(builder), np.arange(NUMBER), FP32))


def asked(model: PretrainedModel, kind: str, top_k: int) -> list[list[tuple[str, float]]]:
    """What a loaded model says of the same examples."""
    rows = examples(kind, NUMBER).to_pylist()
    first = [row["images"][0] for row in rows if row["images"]]
    if kind == "vqa":
        questions = [row["texts"][0] for row in rows]
        return model.answer(first, questions, top_k=top_k, batch_size=BATCH)
    if kind == "nlvr2":
        pairs = [tuple(row["images"]) for row in rows]
        sentences = [row["texts"][0] for row in rows]
        return model.classify_pairs(pairs, sentences, top_k=top_k, batch_size=BATCH)
    if kind in ("sentences", "numbers"):
        return model.classify([row["texts"] for row in rows], top_k=top_k, batch_size=BATCH)
    return model.classify(first, top_k=top_k, batch_size=BATCH)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_fine_tuned_model_predicts_what_its_training_does(tmp_path, kind):
    expected = predicted(kind, tmp_path, BATCH)
    model = PretrainedModel.from_pretrained(fine_tuned(tmp_path / "export", builder_of(kind)))
    found = asked(model, kind, top_k=5)
    assert [[c.label for c in some] for some in found] == [row["labels"] for row in expected]
    assert [[c.score for c in some] for some in found] == [row["scores"] for row in expected]
    assert [some[0] for some in asked(model, kind, top_k=1)] == [some[0] for some in found]


@pytest.mark.parametrize("kind", [kind for kind in TASKS if kind == "captioning"])
def test_captions_are_those_of_the_recipes_decoding(tmp_path, kind):
    expected = predicted(kind, tmp_path, BATCH)
    model = PretrainedModel.from_pretrained(fine_tuned(tmp_path / "export", builder_of(kind)))
    jpegs = [row["images"][0] for row in examples(kind, NUMBER).to_pylist()]
    assert model.caption(jpegs, batch_size=BATCH) == [row["labels"][0] for row in expected]


def test_classes_by_the_texts_of_a_file_are_in_the_export(tmp_path):
    names = tmp_path / "names.tsv"
    labels = builder_of("dual").numbers
    names.write_text("".join(f"{label}\tthe {label} on the left\n" for label in labels))
    task = {"class_names": str(names), "prompt": "one {}"}
    expected = predicted("dual", tmp_path, BATCH, **task)
    folder = fine_tuned(tmp_path / "export", builder_of("dual", **task))
    names.unlink()
    model = PretrainedModel.from_pretrained(folder)
    found = asked(model, "dual", top_k=5)
    assert [[c.score for c in some] for some in found] == [row["scores"] for row in expected]


def test_features_of_a_retrieval_are_those_of_its_training(tmp_path):
    rows = examples("retrieval", NUMBER).to_pylist()
    expected = predicted("retrieval", tmp_path, NUMBER)
    model = PretrainedModel.from_pretrained(
        fine_tuned(tmp_path / "export", builder_of("retrieval"))
    )
    images = model.embed_images([row["images"][0] for row in rows])
    texts = model.embed_texts([text for row in rows for text in row["texts"]])
    assert images.tolist() == [row["features"][0] for row in expected]
    assert texts.tolist() == [text for row in expected for text in row["features"][1:]]
    scores = model.similarity([rows[0]["images"][0]], rows[0]["texts"])
    np.testing.assert_allclose(scores, images[:1] @ texts[:1].T, atol=1e-6)
    raw = model.embed_images([rows[0]["images"][0]], normalize=False)
    np.testing.assert_allclose(raw / np.linalg.norm(raw), images[:1], atol=1e-6)


@pytest.mark.parametrize("file", ["", "model.safetensors", "official.pt"])
@torch.inference_mode()
def test_a_pretrained_model_gives_the_features_that_neighbors_are_searched_by(tmp_path, file):
    """From an export, and from each of its files alone, whose shapes say the configuration."""
    # Files do not say their attention heads: widths of 64 each.
    config = config_of(width=64, num_heads=1, max_text_length=1022)
    folder = pretrained(tmp_path / "export", width=64, num_heads=1, max_text_length=1022)
    model = PretrainedModel.from_pretrained(folder / file)
    jpegs = [row["images"][0] for row in examples("linear", 5).to_pylist()]
    views = torch.from_numpy(EvaluationViews(32)([[jpeg] for jpeg in jpegs], list("abcde"))[:, 0])
    pixels = views.permute(0, 3, 1, 2).float().div(255).sub(0.5).div(0.5)
    expected = F.normalize(network(config)(images=pixels).patches.mean(1), dim=-1)
    assert model.embed_images(jpegs).tolist() == expected.tolist()
    if file:
        with pytest.raises(ValueError, match=r"no text tokenizer; name .*tokenizer=PATH"):
            model.embed_texts(["a red circle"])
        spm = tmp_path / "spm.model"
        model = PretrainedModel.from_pretrained(folder / file, tokenizer=spm)
    texts = model.embed_texts(["a red circle", "one"])
    assert texts.shape == (2, 64) and np.allclose(np.linalg.norm(texts, axis=1), 1)


@pytest.mark.parametrize("method", ["embed_images", "classify"])
def test_results_keep_their_order_and_hardly_depend_on_the_batch(tmp_path, method):
    kind = "linear"
    model = PretrainedModel.from_pretrained(fine_tuned(tmp_path / "export", builder_of(kind)))
    jpegs = [row["images"][0] for row in examples(kind, 7).to_pylist()]
    values = [
        np.array(
            model.embed_images(jpegs, batch_size=size)
            if method == "embed_images"
            else [some[0].score for some in model.classify(jpegs, batch_size=size)]
        )
        for size in (1, 3, 7)
    ]
    for other in values[1:]:
        np.testing.assert_allclose(other, values[0], atol=1e-5)
    empty = getattr(model, method)([])
    assert len(empty) == 0 and (method == "classify" or empty.shape == (0, 48))


def test_bf16_changes_little(tmp_path):
    folder = fine_tuned(tmp_path / "export", builder_of("retrieval"))
    exact, rounded = (
        PretrainedModel.from_pretrained(folder, precision=precision).embed_texts(["a red circle"])
        for precision in ("fp32", "bf16")
    )
    assert (exact * rounded).sum() > 0.99 and not np.array_equal(exact, rounded)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_what_the_cpu_does(tmp_path):
    folder = fine_tuned(tmp_path / "export", builder_of("retrieval"))
    jpegs = [row["images"][0] for row in examples("retrieval", 5).to_pylist()]
    cpu, gpu = (
        PretrainedModel.from_pretrained(folder, device=device) for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(gpu.embed_images(jpegs), cpu.embed_images(jpegs), atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("task", MAKERS)
def test_a_released_file_of_a_task_computes_what_its_network_does(tmp_path, task):
    """The head says the task; vocabulary and labels are named beside the file."""
    changes = {"width": 64, "num_heads": 1, "max_text_length": 1022}
    config = config_of(**changes, final_norm=MAKERS[task][0].final_norm)
    made = built(task, config)
    torch.save({"model": to_released(made)[0]}, tmp_path / "released.pth")
    (tmp_path / "beit3.spm").write_bytes(vocabulary())
    (tmp_path / "labels.txt").write_text("".join(f"label {i}\n" for i in range(7)))
    named = {"labels": tmp_path / "labels.txt"} if task == "vqa" else {}
    model = PretrainedModel.from_pretrained(
        tmp_path / "released.pth", tokenizer=tmp_path / "beit3.spm", **named
    )
    jpegs = [row["images"][0] for row in examples("linear", 2).to_pylist()]
    texts = ["a red circle", "one"]
    images, (ids, padding) = model.processor.images(jpegs), model.processor.texts(texts)
    if task == "retrieval":
        assert model.embed_images(jpegs).tolist() == made.encode_images(images).tolist()
        assert model.embed_texts(texts).tolist() == made.encode_texts(ids, padding).tolist()
        return
    if task == "vqa":
        expected = made(images, ids, padding).sigmoid()
        found = model.answer(jpegs, texts, top_k=7)
        assert model.labels == tuple(f"label {i}" for i in range(7))
    elif task == "nlvr2":
        expected = made(torch.stack([images, images], 1), ids, padding).softmax(1)
        found = model.classify_pairs([(jpeg, jpeg) for jpeg in jpegs], texts, top_k=2)
        assert model.labels == ("False", "True")
    elif task == "captioning":
        captions = generate(made, images, Decoding())
        tokenizer = model.processor.tokenizer
        assert model.caption(jpegs) == [tokenizer.decode(some[0].ids) for some in captions]
        return
    else:
        assert model.source.config.pixel_mean == (0.485, 0.456, 0.406)
        assert model.processor.crop_mode == "center"
        expected = made(images).softmax(1)
        found = model.classify(jpegs)
        assert model.labels == ("0", "1", "2", "3", "4")
    for scores, some in zip(expected, found, strict=True):
        best = scores.sort(descending=True)
        assert [each.score for each in some] == best.values.tolist()
        assert [each.label for each in some] == [model.labels[i] for i in best.indices]
