"""``beit3 export --check`` of fine-tuned networks: whole exports pass, damaged files are named."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from model import BEiT3
from model.finetuning.task_networks import ForTextClassification
from pipelines.cli import app
from pipelines.finetune.check_export import check_export
from tests.model.finetuning.segmentation.shapes import CONFIG, HEADS, segmenter
from tests.model.finetuning.test_task_networks import MAKERS, built
from tests.pipelines.finetune.test_export import LABELS, exported
from tests.pipelines.pretrain.test_start_from import spm
from tokenizer.text import TextTokenizer


@pytest.fixture
def vocab(tmp_path) -> int:
    (tmp_path / "spm.model").write_bytes(spm())
    return TextTokenizer.load(tmp_path / "spm.model").num_rows


def export_of(root: Path, task: str, vocab: int) -> Path:
    config = replace(MAKERS[task][0], vocab_size=vocab)
    return exported(root, task, built(task, config), LABELS[task])


@pytest.mark.parametrize("task", MAKERS)
def test_torchscale_and_transformers_read_the_export_of_each_task(tmp_path, vocab, task):
    findings = {f.file: f for f in check_export(export_of(tmp_path, task, vocab))}
    assert {name: f.details for name, f in findings.items() if not f.ok} == {}
    assert set(findings) == {"model.safetensors", "official.pth", "sentencepiece.bpe.model"}


def test_a_network_without_an_authors_class_has_no_official_file_to_check(tmp_path, vocab):
    config = replace(MAKERS["retrieval"][0], vocab_size=vocab)
    network = ForTextClassification(BEiT3(config), 2)
    folder = exported(tmp_path, "text_classification", network, ["bad", "good"])
    found = CliRunner().invoke(app, ["export", "--check", str(folder)])
    assert found.exit_code == 0, found.output
    assert "official.pth" not in found.output and "vqkd.pt" not in found.output


@pytest.mark.parametrize("head", HEADS)
def test_a_segmenter_is_compared_as_far_as_its_encoder_goes(tmp_path, vocab, head):
    network = segmenter(head, replace(CONFIG, vocab_size=vocab))
    folder = exported(tmp_path, "segmentation", network, ["a", "b", "c"])
    findings = {f.file: f for f in check_export(folder)}
    assert {name: f.details for name, f in findings.items() if not f.ok} == {}
    assert set(findings) == {"model.safetensors", "sentencepiece.bpe.model"}


@pytest.mark.parametrize(
    ("name", "said"),
    [("head.3.weight", "differs"), ("beit3.text_embed.weight", "language.tokens.weight differs")],
)
def test_an_official_file_with_other_weights_is_named(tmp_path, vocab, name, said):
    folder = export_of(tmp_path, "vqa", vocab)
    saved = torch.load(folder / "official.pth")
    saved["model"][name][-1] += 1
    torch.save(saved, folder / "official.pth")
    (failed,) = [f for f in check_export(folder) if not f.ok]
    assert failed.file == "official.pth" and said in failed.details
