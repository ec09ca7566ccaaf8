"""Exports of fine-tuned networks: read by torchscale with each head restated, and started from."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer

from model import BEiT3, BEiT3Config
from model.finetuning.task_networks import ForTextClassification, TaskNetwork
from orchestration import Stage
from orchestration.manifest import SCHEMA_VERSION, Manifest, file_of
from orchestration.storage.store import Store
from pipelines.finetune import export, start
from pipelines.finetune.start_params import StartParams
from pipelines.finetune.task import Task
from tests.in_process import run_in_process
from tests.model.finetuning.official_decoding import OfficialCaptioner
from tests.model.finetuning.test_task_networks import IDS, MAKERS, PADDING, Reference, built
from tests.model.networks import random_images
from tests.pipelines.finetune.test_start import rows, started
from tests.pipelines.pretrain.test_start_from import spm

METRICS = {"test/accuracy": 0.75}
LABELS = {
    "retrieval": [],
    "vqa": ["no", "two dogs", "café", "3", 'a "b"', "yes", ""],
    "nlvr2": ["False", "True"],
    "imagenet": list("abcde"),
    "captioning": [],
}
ASKED = torch.tensor([1, 3, 9, 12])
"Tokens of ``IDS`` that are predicted of captions; none is padding."


def refused(*_: Any, **__: Any) -> Any:
    raise AssertionError("an export calls no method of its task")


class Stub(Task):
    """A task with one parameter of its own."""

    answers: int = 7
    "Number of answers."
    label_names = network = targets = losses = predict = score = refused


Stub.__abstractmethods__ = frozenset()


def committed(folder: Path, files: dict[str, str | bytes], numbers: dict[str, float]) -> Store:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    names = [path.name for path in folder.iterdir() if path.name != "stage.json"]
    manifest = Manifest(
        schema_version=SCHEMA_VERSION, stage=folder.parent.name, fingerprint="f", params={},
        parents={}, parts=[], columns={}, files=[file_of(Store(folder), n) for n in names],
        rounds=[], numbers=numbers,
    )  # fmt: skip
    (folder / "manifest.json").write_bytes(manifest.to_bytes())
    return Store(folder)


def exported(root: Path, name: str, network: TaskNetwork, labels: list[str]) -> Path:
    """The folder that the stage writes for the output of the stages before it."""
    config = replace(network.network.config, final_norm=True)  # the task's choice, not start's
    inputs = {
        "start": committed(
            root / "start", {"network.json": json.dumps(config.to_dict()), "spm.model": spm()}, {}
        )
    }
    (root / "finetune").mkdir()
    state = {n: t.detach().clone() for n, t in network.state_dict().items()}
    save_file(state, root / "finetune" / "network.safetensors")
    inputs["finetune"] = committed(root / "finetune", {"labels.json": json.dumps(labels)}, {})
    inputs["score"] = committed(root / "score", {}, METRICS)
    stages = {n: Stage(n, lambda _: None, StartParams(start_from="/no")) for n in inputs}
    made = export.stage(export.Params(), task=Stub(name=name), **stages)
    (root / "export").mkdir()
    run_in_process(made, Store(root / "export"), inputs)
    return root / "export" / "export"


def restated(task: str, theirs: Reference, images: Tensor) -> Tensor:
    """What the authors' class of a task computes, in plain torch over torchscale's encoder."""
    if task == "retrieval":
        image = F.normalize(theirs.linear(theirs.hidden(images)[:, 0], "vision_head"), dim=-1)
        text = theirs.linear(theirs.hidden(None, IDS)[:, 0], "language_head")
        return torch.cat([image, F.normalize(text, dim=-1)])
    if task == "vqa":
        first = theirs.norm(theirs.hidden(images, IDS)[:, 0], "pooler.norm")
        x = theirs.linear(theirs.linear(first, "pooler.dense").tanh(), "head.0")
        return theirs.linear(F.gelu(theirs.norm(x, "head.1")), "head.3")
    if task == "nlvr2":
        hidden = [theirs.hidden(images, IDS), theirs.hidden(images.flip(0), IDS)]
        count = theirs.encoder.vision_embed.num_position_embeddings()
        x = torch.cat([h[:, i] for h in hidden for i in (0, count)], dim=-1)
        x = theirs.linear(theirs.norm(x, "head.norm1"), "head.dense1")
        return theirs.linear(F.gelu(theirs.norm(x, "head.norm2")), "head.dense2")
    if task == "captioning":
        captioner = OfficialCaptioner(theirs.whole, MAKERS[task][0], 51)
        return captioner.scores(images, IDS, 10, None, PADDING).flatten(0, 1)[ASKED]
    return theirs.linear(theirs.norm(theirs.hidden(images)[:, 1:].mean(dim=1), "fc_norm"), "head")


def ours(task: str, network: Any, images: Tensor) -> Tensor:
    if task == "retrieval":
        return torch.cat([network.encode_images(images), network.encode_texts(IDS, PADDING)])
    if task == "imagenet":
        return network(images)
    if task == "captioning":
        return network(images, IDS, ASKED, PADDING)
    pairs = torch.stack([images, images.flip(0)], dim=1)
    return network(pairs if task == "nlvr2" else images, IDS, PADDING)


@torch.no_grad()
@pytest.mark.parametrize("task", MAKERS)
def test_the_authors_form_computes_what_the_network_does(tmp_path, task):
    network = built(task)
    folder = exported(tmp_path, task, network, LABELS[task])
    config = BEiT3Config.from_dict(json.loads((folder / "network.json").read_text()))
    assert config == MAKERS[task][0]
    official = torch.load(folder / "official.pth")["model"]
    images = random_images(config)
    found, expected = (
        ours(task, network, images),
        restated(task, Reference(official, config), images),
    )
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    again = MAKERS[task][1](BEiT3(config)).eval()
    again.load_state_dict(load_file(folder / "model.safetensors"))
    assert torch.equal(ours(task, again, images), found)


def test_an_export_says_task_labels_input_and_metrics(tmp_path):
    labels = LABELS["vqa"]
    folder = exported(tmp_path, "vqa", built("vqa"), labels)
    lines = (folder / "labels.txt").read_text().splitlines()
    assert lines[1] == '{"answer": "two dogs", "label": 1}'
    assert [json.loads(line)["answer"] for line in lines] == labels
    assert json.loads((folder / "task.json").read_text()) == {
        "task": {"name": "vqa", "answers": 7},
        "image_size": 32,
        "max_text_length": 1022,
        "pixel_mean": [0.5, 0.5, 0.5],
        "pixel_std": [0.5, 0.5, 0.5],
        "metrics": METRICS,
    }
    card = (folder / "README.md").read_text()
    assert "`BEiT3ForVisualQuestionAnswering`" in card and "| test/accuracy | 0.75 |" in card
    assert "the 7 labels" in card and "| answers | 7 |" in card
    assert AutoTokenizer.from_pretrained(folder)("a small red circle")["input_ids"][0] == 0
    other = exported(tmp_path / "other", "nlvr2", built("nlvr2"), LABELS["nlvr2"])
    assert (other / "labels.txt").read_text().startswith('{"name": "False", "label": 0}\n')
    third = exported(tmp_path / "third", "retrieval", built("retrieval"), [])
    assert not (third / "labels.txt").exists()


def unnormed_classifier() -> TaskNetwork:
    return built("imagenet", replace(MAKERS["imagenet"][0], final_norm=True))


def text_classifier() -> TaskNetwork:
    return ForTextClassification(BEiT3(MAKERS["retrieval"][0]), 3)


def fused() -> TaskNetwork:
    return built("retrieval", replace(MAKERS["retrieval"][0], fusion_layers=1))


def without_subln() -> TaskNetwork:
    return built("retrieval", replace(MAKERS["retrieval"][0], subln=False))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (unnormed_classifier, "the authors have no class with this head and this final LayerNorm"),
        (text_classifier, "the authors have no class with this head"),
        (fused, "no vision-language experts"),
        (without_subln, "always build sub-LayerNorm"),
    ],
)
def test_a_form_that_the_authors_do_not_have_is_not_named_official(
    tmp_path, make: Callable[[], TaskNetwork], words
):
    folder = exported(tmp_path, "any", make(), ["a", "b", "c"])
    assert not (folder / "official.pth").exists()
    assert words in (folder / "README.md").read_text()


@pytest.mark.parametrize("fusion_layers", [0, 1])
def test_an_export_starts_another_fine_tuning(tmp_path, fusion_layers):
    config = replace(
        MAKERS["vqa"][0], vocab_size=rows(), fusion_layers=fusion_layers, num_heads=4,
        max_text_length=20, pixel_mean=(0.4, 0.5, 0.6),
    )  # fmt: skip
    network = built("vqa", config)
    folder = exported(tmp_path / "first", "vqa", network, LABELS["vqa"])
    for number, place in enumerate((folder, folder.parent)):
        output = started(tmp_path / f"s{number}", StartParams(start_from=str(place), image_size=48))
        found = start.load_config(output)
        assert found == replace(config, image_size=48)
        assert start.load_labels(output) == LABELS["vqa"]
        second = MAKERS["vqa"][1](BEiT3(found))
        given = {"given_labels": start.load_labels(output), "labels": LABELS["vqa"]}
        assert start.apply(second, start.load_weights(output), **given) == []
        for name, tensor in network.state_dict().items():
            if name != "network.vision.positions":
                assert torch.equal(second.state_dict()[name], tensor), name
