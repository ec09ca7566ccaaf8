"""Files of weights that other programs wrote: what is read, and what is refused in one line."""

import argparse
import inspect
import os
import pathlib
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import model.network.weight_files
import tokenizer.weight_files
from tests.scripted import scripted
from tokenizer.weight_files import UnreadableWeights, read_weights, unwrapped

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([1, 2])}


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in STATE.items()}


@pytest.mark.parametrize(
    "saved",
    [
        STATE,
        OrderedDict(STATE),
        {"model": STATE},
        {"module": STATE},
        {"state_dict": STATE, "epoch": 3},
        {"state_dict": {"model": STATE}},
        prefixed("module."),
        {"model": prefixed("module._orig_mod.")},
        {"model": STATE, "args": argparse.Namespace(lr=1e-3, output=pathlib.PurePath("x").name)},
        {"model": STATE, "args": argparse.Namespace(output=pathlib.Path("out"), betas=(0.9, 0.98))},
        {"model": STATE, "best": np.float64(0.5), "step": np.int64(3), "loss": np.float32(2)},
        {"model": STATE, "half": np.float16(1), "byte": np.uint8(3), "name": np.str_("x")},
        {"model": STATE, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}},
        STATE | {"version": 3, "name": "a"},
    ],
    ids=lambda saved: "+".join(list(saved)[:3]),
)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_tensors_are_read_from_every_envelope(tmp_path, saved, legacy):
    path = tmp_path / "weights.pth"
    torch.save(saved, path, _use_new_zipfile_serialization=not legacy)
    read = read_weights(path)
    assert read.keys() == STATE.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in STATE.items())


@pytest.mark.parametrize(
    ("change", "words"),
    [(torch.Tensor.to_sparse, "is sparse"), (lambda t: t.to("meta"), "is without values")],
)
def test_tensors_without_plain_values_are_refused(tmp_path, change, words):
    torch.save(STATE | {"a.weight": change(STATE["a.weight"])}, tmp_path / "weights.pth")
    with pytest.raises(UnreadableWeights, match=f"a.weight {words}; save plain tensors"):
        read_weights(tmp_path / "weights.pth")


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.bin", "weights"])
def test_safetensors_are_read_under_any_name(tmp_path, name):
    save_file(prefixed("module."), tmp_path / name)
    assert read_weights(tmp_path / name).keys() == STATE.keys()


def test_a_prefix_that_only_some_names_have_stays():
    mixed = {**prefixed("module."), "b": torch.zeros(1)}
    assert unwrapped(mixed).keys() == mixed.keys()


class Planted:
    """A class that a weights file must not bring to life."""

    def __reduce__(self):
        return (os.mkdir, ("planted",))


def broken_files(folder: pathlib.Path) -> dict[str, tuple[pathlib.Path, str]]:
    """Paths of files that hold no readable weights, and a part of the message of each."""
    torch.save(STATE, folder / "whole")
    whole = (folder / "whole").read_bytes()
    save_file(STATE, folder / "whole_safe")
    safe = (folder / "whole_safe").read_bytes()
    contents = {
        "empty": (b"", "the file is empty"),
        "html": (b"<!DOCTYPE html><title>404</title>", "begins with '<!DOCTYPE html"),
        "pointer": (b"version https://git-lfs.github.com/spec/v1\n", "begins with 'version https"),
        "cut short": (whole[: len(whole) // 2], "damaged"),
        "one byte": (b"\x80", "damaged"),
        "cut safetensors": (safe[:-4], "damaged"),
        "a pickle": (pickle.dumps({"model": 3}), "damaged"),
    }
    files = {}
    for name, (content, words) in contents.items():
        (folder / name).write_bytes(content)
        files[name] = (folder / name, words)
    for name, saved, words in (
        ("a number", 3, "it is a int"),
        ("a list", [torch.zeros(1)], "it is a list"),
        ("no tensor", {"config": 3, "epoch": 1}, "its keys: config, epoch"),
        ("parts", {"student": STATE, "teacher": STATE}, "its keys: student, teacher"),
        ("an empty state", {"model": {}}, "its keys: none"),
        ("a foreign class", {"model": STATE, "x": Planted()}, "mkdir"),
        ("a whole module", nn.Linear(2, 2), "Linear"),
    ):
        torch.save(saved, folder / name)
        files[name] = (folder / name, words)
    torch.jit.save(scripted(nn.Linear(2, 2)), folder / "script")
    files["script"] = (folder / "script", "TorchScript archive")
    return files


@pytest.mark.filterwarnings("error")
def test_a_pickle_of_another_protocol_is_refused_without_a_warning(tmp_path):
    (tmp_path / "weights.pth").write_bytes(pickle.dumps(Planted(), protocol=4))
    with pytest.raises(UnreadableWeights, match=r"damaged; fetch it again$"):
        read_weights(tmp_path / "weights.pth")


def test_each_unreadable_file_has_one_line_that_names_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, (path, words) in broken_files(tmp_path).items():
        with pytest.raises(UnreadableWeights) as caught:
            read_weights(path)
        message = str(caught.value)
        assert message.startswith(f"{path}: ") and words in message, (name, message)
        assert "\n" not in message and len(message) < 600, (name, message)
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize("name", ["none", "folder"])
def test_a_path_that_is_no_file_is_named(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileNotFoundError, match=name):
        read_weights(tmp_path / name)


def test_both_rooms_have_the_same_reader():
    assert inspect.getsource(model.network.weight_files) == inspect.getsource(
        tokenizer.weight_files
    )
