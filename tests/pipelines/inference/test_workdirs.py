"""A workdir stands for the export of its newest training, complete or not."""

import json
import shutil
from pathlib import Path

import pytest

from model.network.pretrained import NotAModel
from orchestration.manifest import SCHEMA_VERSION, Manifest, file_of
from orchestration.plan import RECORD, WORKFLOWS
from orchestration.storage.store import Store
from pipelines import PretrainedModel
from tests.pipelines.inference.models import builder_of, fine_tuned, pretrained


def record(workdir: Path, name: str, stages: dict[str, str], started_at: float) -> None:
    """Write the record of a workflow."""
    folder = workdir / WORKFLOWS / name
    folder.mkdir(parents=True)
    described = {"name": name, "stages": stages, "started_at": started_at}
    (folder / RECORD).write_text(json.dumps(described))


def commit(workdir: Path, fingerprint: str, export: Path) -> Path:
    """Commit an export as the stage's output."""
    folder = workdir / "export" / fingerprint
    shutil.copytree(export, folder / "export")
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    manifest = Manifest(
        schema_version=SCHEMA_VERSION, stage="export", fingerprint=fingerprint, params={},
        parents={}, parts=[], columns={}, files=[file_of(Store(folder), n) for n in names],
        rounds=[], numbers={},
    )  # fmt: skip
    (folder / "manifest.json").write_bytes(manifest.to_bytes())
    return folder


def test_the_newest_training_of_a_workdir_gives_the_model(tmp_path):
    work = tmp_path / "work"
    output = commit(work, "a1", pretrained(tmp_path / "p" / "export"))
    record(work, "pretraining", {"pretrain": "p1", "export": "a1"}, 1.0)
    assert PretrainedModel.from_pretrained(work).task is None
    assert PretrainedModel.from_pretrained(output).task is None
    commit(work, "b2", fine_tuned(tmp_path / "f" / "export", builder_of("vqa")))
    record(work, "fine-tuning", {"finetune": "f1", "export": "b2"}, 2.0)
    model = PretrainedModel.from_pretrained(work)
    assert model.methods == ("embed_images", "embed_texts", "answer")
    assert str(work) in model.description
    record(work, "embed", {"inputs": "i1", "embed": "e1"}, 3.0)
    assert PretrainedModel.from_pretrained(work).methods == model.methods


def test_a_fine_tuning_that_goes_on_is_no_model_yet(tmp_path):
    work = tmp_path / "work"
    record(work, "fine-tuning", {"finetune": "f1", "export": "b2"}, 2.0)
    with pytest.raises(NotAModel, match="the fine-tuning has no export yet; run it to its end"):
        PretrainedModel.from_pretrained(work)
    other = tmp_path / "other"
    record(other, "pretraining", {"pretrain": "p1", "export": "a1"}, 1.0)
    with pytest.raises(NotAModel, match="neither a checkpoint of pretrain"):
        PretrainedModel.from_pretrained(other)
