"""Files of the Hugging Face hub, through its own client and a server that answers as the hub."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated

import huggingface_hub.constants
import pytest

from orchestration.errors import RecipeError
from orchestration.params import EXTERNAL_FILE, OR_URI, StageParams
from orchestration.storage.remote_files import (
    check,
    copy_files,
    head_of,
    version_of,
    versions_of,
    with_local_files,
)
from orchestration.storage.store import Store

BODY = b"weights " * 1000
FILES = {
    "/microsoft/beit/resolve/main/vqkd.pth": "large",
    "/microsoft/beit/resolve/v1%2E0/sub/a%20b.pth": "small",
    "/datasets/a/b/resolve/main/x": "small",
}


class Weights(StageParams):
    weights: Annotated[str, EXTERNAL_FILE, OR_URI]


@pytest.fixture
def hub(monkeypatch):
    """A hub; it lists (method, path, token) of each request."""
    asked: list[tuple[str, str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append((self.command, self.path, self.headers.get("Authorization")))
            kind = "cdn" if self.path == "/cdn" else FILES.get(self.path.replace("v1.0", "v1%2E0"))
            if kind is None:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.end_headers()
                return
            if kind == "large":
                self.send_response(302)
                self.send_header("Location", f"http://localhost:{self.server.server_port}/cdn")
                self.send_header("X-Linked-Size", str(len(BODY)))
                self.send_header("X-Linked-ETag", '"digest"')
                self.send_header("Content-Length", "0")
            else:
                self.send_response(200)
                self.send_header("ETag", '"own"')
                self.send_header("Content-Length", str(len(BODY)))
            self.send_header("X-Repo-Commit", "c0ffee")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(BODY)

        do_GET = do_HEAD

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template,
                        raising=False)  # fmt: skip
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_hidden")
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    version_of.cache_clear()
    head_of.cache_clear()
    yield asked
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "uri",
    [
        "hf://microsoft/beit/vqkd.pth",
        "hf://models/microsoft/beit/vqkd.pth",
        "hf://microsoft/beit@v1.0/sub/a b.pth",
        "hf://datasets/a/b/x",
    ],
)
def test_a_file_of_the_hub_is_copied_by_its_version(hub, tmp_path, uri):
    check(uri)
    params, folder = Weights(weights=uri), Store(tmp_path / "stage")
    copy_files(versions_of(params), folder)
    with Path(with_local_files(params, folder).weights).open("rb") as file:
        assert file.read() == BODY
    assert head_of(uri, 8) == b"weights "


def test_the_token_goes_to_the_hub_and_not_to_its_content_servers(hub):
    head_of("hf://microsoft/beit/vqkd.pth", 8)
    head_of("hf://datasets/a/b/x", 8)
    for method, path, token in hub:
        assert token == (None if path == "/cdn" else "Bearer hf_hidden"), (method, path)
    assert ("GET", "/cdn", None) in hub


def test_what_the_hub_does_not_have_is_one_line(hub):
    with pytest.raises(RecipeError) as error:
        check("hf://microsoft/beit/gone.pth")
    assert str(error.value).startswith("hf://microsoft/beit/gone.pth: ")
    assert "404" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("uri", ["hf://beit", "hf://microsoft/beit", "hf://microsoft//x", "hf://"])
def test_what_names_no_file_is_refused_with_the_right_spelling(uri):
    with pytest.raises(RecipeError, match="hf://owner/name/path"):
        check(uri)
