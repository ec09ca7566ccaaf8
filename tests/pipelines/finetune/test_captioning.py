"""Captioning: masks and loss restated, the worst tokens of a batch, captions and their score."""

import json
import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from dataprep.schemas import EXAMPLES
from model.finetuning.generation import generate
from orchestration import Dataset
from orchestration.errors import StageError
from orchestration.storage.store import Store
from pipelines.finetune import caption_java
from pipelines.finetune.labels import read_samples, write_labels
from pipelines.finetune.nearest_texts import nearest_predictions
from pipelines.finetune.predicting import Predictor
from pipelines.finetune.registry import AnyTask
from pipelines.finetune.score import missing_metrics, write_scores
from pipelines.finetune.tasks.captioning import Captioning
from pipelines.finetune.views import AugmentParams
from tests.committing import commit_tables
from tests.pipelines.finetune.examples import (
    builder,
    examples,
    network_of,
    predictions,
    text_tokenizer,
)
from tests.pipelines.finetune.test_task_losses import doubled
from tokenizer.text import EOS

NUM, SEED = 6, 11
NUMBERS = np.arange(NUM)
EXACT = torch.autocast("cpu", enabled=False)
TASKS = TypeAdapter(AnyTask)


def batch_of(built, step, part=slice(None)):
    """Some slots of a step, in float64."""
    some = NUMBERS[part]
    build = built.training(AugmentParams(), 0.4, SEED)
    batch = build(examples("captioning", NUM).take(some), some, step, some, 0 * some)
    return doubled(batch.to(torch.device("cpu")))


def losses_one_by_one(network, batch, smoothing=0.1):
    """(loss, is right) of each masked token, of each caption alone, by plain torch."""
    found = []
    for i in range(len(batch)):
        real = ~batch.text_padding[i]
        hidden = network.network(
            images=batch.images[i],
            text_ids=batch.text_ids[i][real][None],
            attention="seq2seq",
            residual_scale=None if batch.residual_scale is None else batch.scale(0)[..., i, None],
        )
        logs = network.mlm_head(hidden.text[0]).log_softmax(1)
        for position in batch.text_mask[i].nonzero()[:, 0].tolist():
            row, target = logs[position], int(batch.targets[i, position])
            wanted = torch.full_like(row, smoothing / (len(row) - 1))
            wanted[target] = 1 - smoothing
            found.append(((wanted * (wanted.log() - row)).sum(), int(row.argmax()) == target))
    return found


def test_most_tokens_of_a_caption_are_masked_and_its_end_may_be():
    built = builder("captioning", max_length=16)
    mask_id, ends = text_tokenizer().mask, 0
    for step in range(8):
        batch = batch_of(built, step)
        for ids, hidden, mask, targets in zip(
            batch.text_ids, batch.text_padding, batch.text_mask, batch.targets, strict=True
        ):
            length = int((~hidden).sum())
            assert int(mask.sum()) == max(1, min(math.floor(0.7 * length + 0.5), length - 1))
            assert not mask[0] and not (mask & hidden).any()
            assert torch.equal(ids[~mask], targets[~mask]) and int(targets[length - 1]) == EOS
            assert not (targets == mask_id).any()
            ends += int(mask[length - 1])
    assert 0 < ends < 8 * NUM


@pytest.mark.parametrize("step", [0, 3])
@pytest.mark.parametrize("sizes", [(6,), (2, 3, 1), (1,) * 6])
def test_the_loss_is_the_mean_over_tokens_without_the_worst_of_the_batch(step, sizes):
    """The task drops the worst 30% after step 0."""
    built = builder("captioning")
    network = network_of(built).train()
    ends = np.cumsum(sizes)
    batches = [
        batch_of(built, step, slice(end - size, end)) for end, size in zip(ends, sizes, strict=True)
    ]
    found = built.task.backward(network, batches, NUM, EXACT)
    gradients = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    tokens = losses_one_by_one(network, batch_of(built, step))
    ordered = sorted((loss for loss, _ in tokens), key=lambda loss: float(loss.detach()))
    kept = ordered[: int(len(ordered) * 0.7)] if step else ordered
    expected = torch.stack(kept).mean()
    expected.backward()
    torch.testing.assert_close(found["loss"] / NUM, expected.detach(), rtol=1e-9, atol=0)
    right = sum(is_right for _, is_right in tokens) / len(tokens)
    assert float(found["accuracy"]) / NUM == pytest.approx(right)
    norm = max(float(p.grad.norm()) for p in network.parameters() if p.grad is not None)
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            assert float((gradients[name] - parameter.grad).norm()) < 1e-9 * norm, name


def test_without_drop_worst_no_token_is_left_out():
    built = builder("captioning")
    built.task = built.task.model_copy(update={"drop_worst": None})
    network = network_of(built).train()
    found = built.task.backward(network, [batch_of(built, 9)], NUM, EXACT)
    tokens = torch.stack([loss for loss, _ in losses_one_by_one(network, batch_of(built, 9))])
    torch.testing.assert_close(found["loss"] / NUM, tokens.mean().detach(), rtol=1e-9, atol=0)


@torch.no_grad()
def test_a_prediction_has_the_words_of_the_generated_captions_best_first(tmp_path):
    built, table = builder("captioning"), examples("captioning", NUM)
    network = network_of(built).float().eval()
    dataset = commit_tables(Store(tmp_path), [table], row_group_rows=4)
    rows = list(Predictor(built.task, built, [], dataset, 4)(network, NUMBERS, EXACT))
    images = built.evaluation(table, NUMBERS).to(torch.device("cpu")).images[:, 0]
    decoding = built.task.decoding.decoding(16)
    assert (decoding.num_beams, decoding.max_length) == (3, 8)
    for row, found in zip(rows, generate(network, images, decoding), strict=True):
        assert row["labels"] == [text_tokenizer().decode(each.ids) for each in found]
        assert row["scores"] == pytest.approx([each.score for each in found], rel=1e-4)
        assert "token_ids" not in row


@torch.no_grad()
def test_what_is_drawn_depends_on_seed_and_row_alone(tmp_path):
    built = builder("captioning")
    drawing = {"name": "captioning", "decoding": {"num_beams": 1, "temperature": 2.0}}
    network = network_of(built).float().eval()
    dataset = commit_tables(Store(tmp_path), [examples("captioning", NUM)], row_group_rows=4)

    def texts(seed, batch_size, numbers):
        built.task = TASKS.validate_python(
            drawing | {"decoding": drawing["decoding"] | {"seed": seed, "max_length": 6}}
        )
        predictor = Predictor(built.task, built, [], dataset, batch_size)
        return [row["labels"] for row in predictor(network, numbers, EXACT)]

    whole = texts(0, 6, NUMBERS)
    assert texts(0, 1, NUMBERS[::-1]) == whole[::-1] and texts(1, 6, NUMBERS) != whole


def test_the_text_of_token_ids_is_the_one_that_they_encode():
    tokenizer = text_tokenizer()
    ids = tokenizer.encode("a red circle on the left")
    assert tokenizer.decode(ids) == "a red circle on the left"
    assert tokenizer.decode([0, *ids, 2, 1, tokenizer.mask, tokenizer.num_rows - 1]) == (
        "a red circle on the left"
    )
    assert tokenizer.decode([]) == ""


def captioned(rows):
    """Examples of (captions, domain)."""
    return pa.Table.from_pylist(
        [
            {"example_id": f"{7 * i}", "images": [], "texts": texts, "main_label": "",
             "labels": [domain] if domain else []}
            for i, (texts, domain) in enumerate(rows)
        ],
        EXAMPLES,
    )  # fmt: skip


ROWS = [
    (["A red circle.", "One red circle"], "in-domain"),
    (["A blue square."], "in-domain"),
    ([], "near-domain"),
    (["Two cats."], "out-domain"),
    (["Two dogs on a bed."], "out-domain"),
]
FOUND = [["a red circle", "x"], ["a red square"], ["unseen"], ["two cats"], ["two dogs"]]


@pytest.fixture
def no_java(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")


def committed_split(folder, found=FOUND, rows=ROWS):
    given = predictions([{"labels": labels, "scores": [0.0] * len(labels)} for labels in found])
    ids = pa.array([f"{7 * i}" for i in range(len(rows))])
    given = given.set_column(1, "example_id", ids)
    return {
        "predict_test": commit_tables(Store(folder / "predict"), [given], row_group_rows=3),
        "prepare_test": commit_tables(
            Store(folder / "prepare"), [captioned(rows)], row_group_rows=2
        ),
    }


def test_the_score_says_which_metrics_are_missing_and_why(tmp_path, no_java):
    task = Captioning(name="captioning")
    folder = Store(tmp_path / "score")
    numbers, files = write_scores(folder, task, ["test"], committed_split(tmp_path))
    assert numbers["test/own_tokens/cider"] > numbers["test/chance/own_tokens/cider"] > 0
    assert "test/cider" not in numbers and files == ["score.json", "submission_test.json"]
    missing = missing_metrics(folder.read("score.json"))
    names = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider", "meteor", "spice")
    assert missing.keys() == {f"test/{name}" for name in names}
    assert all(reason.endswith("java is not on the PATH") for reason in missing.values())
    submission = json.loads(folder.read("submission_test.json"))
    assert submission[0] == {"image_id": 0, "caption": "a red circle"}
    assert submission[2] == {"image_id": 14, "caption": "unseen"} and len(submission) == 5


def test_the_score_of_nocaps_has_the_cider_of_each_domain(tmp_path, monkeypatch):
    monkeypatch.setattr(
        caption_java, "tokenized", lambda captions, references: (list(captions), references)
    )
    monkeypatch.setattr(caption_java, "meteor", lambda *texts: 0.5)
    numbers, _ = write_scores(
        Store(tmp_path / "score"),
        Captioning(name="captioning"),
        ["test"],
        committed_split(tmp_path),
    )
    assert {"test/in-domain/cider", "test/out-domain/cider"} <= numbers.keys()
    assert "test/near-domain/cider" not in numbers  # it has no captions
    assert numbers["test/meteor"] == 0.5 and numbers["test/num_examples"] == 5


def test_a_split_without_captions_has_a_submission_and_no_metrics(tmp_path):
    rows = [([], "in-domain"), ([], None)]
    inputs = committed_split(tmp_path, [["a cat"], ["a dog"]], rows)
    folder = Store(tmp_path / "score")
    numbers, files = write_scores(folder, Captioning(name="captioning"), ["test"], inputs)
    assert numbers == {"test/num_examples": 2} == json.loads(folder.read("score.json"))
    assert [row["caption"] for row in json.loads(folder.read(files[1]))] == ["a cat", "a dog"]


@pytest.mark.parametrize("name", ["007", "٣", "²", "1" * 5000, "x.jpg", "-0"])
def test_an_image_id_that_is_no_plain_number_is_a_text_in_the_submission(name):
    rows = predictions([{"labels": ["a cat"]}, {"labels": ["a dog"]}])
    rows = rows.set_column(1, "example_id", pa.array([name, "-3"]))
    written = json.loads(Captioning(name="captioning").submission(rows))
    assert [row["image_id"] for row in written] == [name, -3]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(["A cat"], None), ([], None)], "dev has one image with captions, of which CIDEr is 0"),
        ([([], None)], "the split dev has no caption"),
    ],
)
def test_a_dev_split_that_chooses_no_weights_is_refused(tmp_path, rows, message):
    splits = {
        name: commit_tables(Store(tmp_path / name), [table], row_group_rows=4)
        for name, table in (("train", examples("captioning", 9)), ("dev", captioned(rows)))
    }
    with pytest.raises(StageError, match=message):
        write_labels(Store(tmp_path / "labels"), Captioning(name="captioning"), splits)


def test_an_image_without_captions_is_not_trained_on(tmp_path):
    train = commit_tables(Store(tmp_path / "train"), [captioned(ROWS)], row_group_rows=4)
    store = Store(tmp_path / "labels")
    numbers = write_labels(store, Captioning(name="captioning"), {"train": train})
    assert numbers == {"num_labels": 0, "num_samples": 5, "num_unused_examples": 1}
    files = {name: store.read(name) for name in ("labels.json", "samples.parquet")}
    again = commit_tables(Store(tmp_path / "again"), [], row_group_rows=1, files=files)
    assert read_samples(again).tolist() == [2, 1, 0, 1, 1]


def test_without_the_scorers_a_plan_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pycocoevalcap.cider.cider", None)
    assert "pip install 'beit3-pipeline[captioning]'" in Captioning(name="captioning").requires()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"decoding": {"temperature": 1.0}}, "num_beams"),
        ({"decoding": {"top_p": 0.5}}, "temperature"),
        ({"decoding": {"max_length": 2}}, "max_length"),
        ({"drop_worst": {"ratio": 1.0}}, "ratio"),
        ({"mask_ratio": 0}, "mask_ratio"),
    ],
)
def test_parameters_that_cannot_be_used_are_refused(changes, words):
    with pytest.raises(ValidationError, match=words):
        TASKS.validate_python({"name": "captioning"} | changes)


def test_the_baseline_repeats_the_caption_of_the_nearest_training_image(tmp_path):
    """A test image is a training image at another size; images without captions are left out."""
    table = examples("captioning", 12)
    rows = table.to_pylist()
    rows[4]["texts"] = []
    train = commit_tables(
        Store(tmp_path / "train"), [pa.Table.from_pylist(rows, table.schema)], row_group_rows=5
    )
    test = commit_tables(Store(tmp_path / "test"), [table.slice(3, 6)], row_group_rows=4)
    found = nearest_predictions(train, test).to_pylist()
    assert [row["row"] for row in found] == list(range(6))
    for row, example in zip(found, rows[3:9], strict=True):
        assert row["example_id"] == example["example_id"]
        if example["texts"]:
            assert row["labels"] == example["texts"][:1]
    assert Dataset.open(Store(tmp_path / "test")).num_rows == 6
    task = Captioning(name="captioning")
    inputs = {"predict_test": None, "prepare_test": test, "prepare_train": train}
    given = nearest_predictions(train, test)
    inputs["predict_test"] = commit_tables(Store(tmp_path / "predict"), [given], row_group_rows=4)
    numbers, _ = write_scores(Store(tmp_path / "score"), task, ["test"], inputs)
    assert numbers["test/nearest_image/own_tokens/cider"] == numbers["test/own_tokens/cider"] > 0
    assert "test/nearest_image/chance/own_tokens/cider" not in numbers


def test_a_training_batch_has_its_step_and_slots():
    built = builder("captioning")
    batch = batch_of(built, 5, slice(2, 4))
    assert batch.step == 5 and batch.slots.tolist() == [2, 3]
    assert replace(batch, step=6).step == 6
