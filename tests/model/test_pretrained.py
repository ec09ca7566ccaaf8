"""``BEiT3.from_pretrained``: folders, files, the hub and its cache; and ``save_pretrained``.

Refusals of damaged and foreign folders are in ``tests/pipelines/inference/test_refusals.py``.
"""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch

from model import BEiT3
from model.finetuning.released import to_released
from model.network.interop import to_official
from model.network.pretrained import NotAModel
from tests.model.finetuning.test_task_networks import MAKERS, built
from tests.model.networks import RELEASED, SHARED, network

WIDE = replace(RELEASED, width=64, num_heads=1, max_text_length=1022)
"Widths of 64 for each attention head, which a file alone does not say."


def assert_same(found: BEiT3, expected: dict[str, torch.Tensor]) -> None:
    state = found.state_dict()
    assert state.keys() == expected.keys() and not found.training
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("config", [SHARED, RELEASED, replace(RELEASED, final_norm=False)])
def test_a_folder_keeps_configuration_and_weights(tmp_path, config):
    made = network(config)
    made.save_pretrained(tmp_path / "a" / "b")
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == [
        "model.safetensors",
        "network.json",
    ]
    assert json.loads((tmp_path / "a/b/network.json").read_text())["format"] == 1
    found = BEiT3.from_pretrained(tmp_path / "a" / "b")
    assert found.config == config
    assert_same(found, made.state_dict())


@pytest.mark.parametrize("envelope", ["", "model", "module"])
def test_a_file_in_the_official_layout_says_its_configuration(tmp_path, envelope):
    made = network(WIDE)
    official, _ = to_official(made.state_dict(), WIDE)
    torch.save({envelope: official} if envelope else official, tmp_path / "official.pth")
    found = BEiT3.from_pretrained(tmp_path / "official.pth")
    assert found.config == WIDE
    assert_same(found, made.state_dict())


@pytest.mark.parametrize("task", MAKERS)
def test_a_released_file_of_a_task_gives_its_encoder(tmp_path, task):
    config = replace(MAKERS[task][0], width=64, num_heads=1, max_text_length=1022)
    made = built(task, config)
    torch.save({"model": to_released(made)[0]}, tmp_path / "released.pth")
    found = BEiT3.from_pretrained(str(tmp_path / "released.pth"))
    expected = made.network.state_dict()
    if task == "captioning":  # its head for words has the names of the head of pretraining
        expected |= {f"mlm_head.{n}": t for n, t in made.mlm_head.state_dict().items()}
    assert_same(found, expected)
    assert hasattr(found, "mlm_head") == (task == "captioning")


def test_half_precision_is_read_as_fp32(tmp_path):
    official, _ = to_official(network(WIDE).state_dict(), WIDE)
    torch.save({name: tensor.half() for name, tensor in official.items()}, tmp_path / "half.pt")
    found = BEiT3.from_pretrained(tmp_path / "half.pt")
    assert {tensor.dtype for tensor in found.state_dict().values()} == {torch.float32}


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Iterator[tuple[Path, list[str]]]:
    """A hub on loopback that serves the files of a folder, and the paths that were asked for."""
    served, asked = tmp_path / "served", list[str]()
    network(SHARED).save_pretrained(served)
    (served / "official.pt").write_bytes(b"the weights once more")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            owner, name = "/someone/beit3/resolve/", self.path.rpartition("/")[2]
            headers = {"X-Repo-Commit": "c0ffee" * 6 + "c0ff", "ETag": f'"{name}"'}
            if self.path.startswith("/api/models/someone/beit3/revision/"):
                files = [{"rfilename": path.name} for path in served.iterdir()]
                body = json.dumps(
                    {"id": "someone/beit3", "sha": "c0ffee" * 6 + "c0ff", "siblings": files}
                )
                return self.answer(200, body.encode(), {"Content-Type": "application/json"})
            if self.path.startswith("/api/models/someone/beit3/tree/"):
                tree = [
                    {"type": "file", "path": path.name, "size": 1, "oid": path.name}
                    for path in served.iterdir()
                ]
                body = json.dumps(tree)
                return self.answer(200, body.encode(), {"Content-Type": "application/json"})
            if self.path.startswith(owner) and (served / name).is_file():
                return self.answer(200, (served / name).read_bytes(), headers)
            code = "EntryNotFound" if self.path.startswith(owner) else "RepoNotFound"
            self.answer(404, b"", {"X-Error-Code": code})

        do_HEAD = do_GET

        def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", address)
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(
        "huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.chdir(tmp_path)
    yield served, asked
    server.shutdown()
    server.server_close()


def test_a_name_on_the_hub_is_fetched_once_and_read_offline(hub, monkeypatch):
    _, asked = hub
    expected = network(SHARED).state_dict()
    assert_same(BEiT3.from_pretrained("someone/beit3"), expected)
    assert_same(BEiT3.from_pretrained("someone/beit3@v1"), expected)
    assert not any("official.pt" in path for path in asked), "the weights once more"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    asked.clear()
    assert_same(BEiT3.from_pretrained("someone/beit3"), expected)
    with pytest.raises(NotAModel, match=r"someone/other: there is no such folder or file here"):
        BEiT3.from_pretrained("someone/other")
    assert not asked


def test_a_hub_that_does_not_answer_is_said_at_once_and_the_cache_is_read(hub, monkeypatch):
    expected = network(SHARED).state_dict()
    assert_same(BEiT3.from_pretrained("someone/beit3"), expected)
    dead = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", dead)
    monkeypatch.setattr(
        "huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", dead, raising=False
    )
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("tried again"))
    assert_same(BEiT3.from_pretrained("someone/beit3"), expected)
    with pytest.raises(NotAModel, match=r"someone/other: there is no .* hub does not answer: Conn"):
        BEiT3.from_pretrained("someone/other")


@pytest.mark.parametrize("name", ["some--one/beit3", "-a/b", "a/b-"])
def test_an_odd_name_on_the_hub_is_one_sentence(hub, name):
    with pytest.raises(NotAModel, match=f"{name}: ") as refused:
        BEiT3.from_pretrained(name)
    assert "\n" not in str(refused.value)


def test_another_model_on_the_hub_is_refused_before_its_weights_are_fetched(hub):
    served, asked = hub
    (served / "network.json").rename(served / "config.json")
    with pytest.raises(NotAModel, match=r"hub gives no network.json of someone/beit3"):
        BEiT3.from_pretrained("someone/beit3")
    assert not any("safetensors" in path for path in asked)


def test_a_folder_of_that_name_wins_over_the_hub(hub):
    _, asked = hub
    network(RELEASED).save_pretrained("someone/beit3")
    assert BEiT3.from_pretrained("someone/beit3").config == RELEASED
    assert not asked
