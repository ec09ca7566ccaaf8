"""What a model is written as: byte for byte the folder that the stage wrote."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model import BEiT3
from pipelines import PretrainedModel
from pipelines.finetune.check_export import check_export as check_fine_tuned
from pipelines.pretrain.check_export import check_export as check_pretrained
from tests.pipelines.inference.models import KINDS, METRICS, builder_of, fine_tuned, pretrained


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("form", [{}, {"attention": "shared", "fusion_layers": 1, "subln": False}])
def test_a_pretrained_model_is_written_as_its_export_was(tmp_path, form):
    folder = pretrained(tmp_path / "export", **form)
    PretrainedModel.from_pretrained(folder).save_pretrained(tmp_path / "again")
    assert content(tmp_path / "again") == content(folder)
    assert all(finding.ok for finding in check_pretrained(tmp_path / "again"))


@pytest.mark.parametrize("kind", [*KINDS, "detection"])
def test_a_fine_tuned_model_is_written_as_its_export_was(tmp_path, kind):
    folder = fine_tuned(tmp_path / "export", builder_of(kind))
    model = PretrainedModel.from_pretrained(folder)
    assert model.source.metrics == METRICS and model.task == builder_of(kind).task
    model.save_pretrained(tmp_path / "again")
    assert content(tmp_path / "again") == content(folder)
    assert all(finding.ok for finding in check_fine_tuned(tmp_path / "again"))


def test_files_of_a_task_go_with_it(tmp_path):
    names = tmp_path / "names.tsv"
    names.write_text("".join(f"{label}\tthe {label}\n" for label in builder_of("dual").numbers))
    folder = fine_tuned(tmp_path / "export", builder_of("dual", class_names=str(names)))
    assert (
        json.loads((folder / "task.json").read_text())["task"]["class_names"] == "class_names.tsv"
    )
    moved = Path(shutil.move(folder, tmp_path / "moved"))
    names.unlink()
    PretrainedModel.from_pretrained(moved).save_pretrained(tmp_path / "again")
    assert content(tmp_path / "again") == content(moved)


def test_weights_without_tokenizers_are_written_without_them(tmp_path):
    folder = pretrained(tmp_path / "export", width=64, num_heads=1, max_text_length=1022)
    model = PretrainedModel.from_pretrained(folder / "official.pt")
    model.save_pretrained(tmp_path / "again")
    found = content(tmp_path / "again")
    assert found["official.pt"] and not {"vqkd.pt", "spm.model"} & found.keys()
    assert found["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    again = PretrainedModel.from_pretrained(tmp_path / "again")
    assert again.methods == model.methods == ("embed_images", "fill_patches")


def test_a_model_is_not_written_over_another_folder(tmp_path):
    folder = pretrained(tmp_path / "export")
    model = PretrainedModel.from_pretrained(folder)
    with pytest.raises(FileExistsError, match="export has files; name an empty or a new folder"):
        model.save_pretrained(folder)


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    model = PretrainedModel.from_pretrained(pretrained(tmp_path / "export"))
    file = tmp_path / "file"
    file.write_text("kept")
    for saved in (model, model.encoder):
        for place in (file, file / "inner"):
            with pytest.raises(FileExistsError, match=r"is, or lies in, a file; name a new folder"):
                saved.save_pretrained(place)
    assert file.read_text() == "kept"


def test_the_encoder_of_a_fine_tuning_is_a_network_without_heads(tmp_path):
    folder = fine_tuned(tmp_path / "export", builder_of("vqa"))
    network = BEiT3.from_pretrained(folder)
    assert not hasattr(network, "mlm_head") and not network.training
    saved = load_file(folder / "model.safetensors")
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, saved[f"network.{name}"])
    network.save_pretrained(tmp_path / "encoder")
    again = BEiT3.from_pretrained(tmp_path / "encoder")
    assert again.config == network.config
    assert all(torch.equal(t, network.state_dict()[n]) for n, t in again.state_dict().items())
