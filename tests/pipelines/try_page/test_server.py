"""The server of the page: results, sentences for what a user can mend, and refusals."""

import base64
import json
import logging
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import cv2
import numpy as np
import pytest
from starlette.testclient import TestClient

from orchestration.errors import PipelineError
from pipelines import PretrainedModel
from pipelines.report.detected import color_of
from pipelines.try_page import guards, server
from pipelines.try_page.code_patches import joined, patches_of
from pipelines.try_page.panels import Preview, panels_of
from tests.pipelines.apply import drawn
from tests.pipelines.inference.models import builder_of, fine_tuned, pretrained

OWN = "http://127.0.0.1:7860"
IMAGE = drawn.image_bytes(5)
ENCODED = base64.b64encode(IMAGE).decode()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PretrainedModel]:
    folder = tmp_path_factory.mktemp("models")
    folders = {"pretrained": pretrained(folder / "pretrained" / "export")}
    for kind in ("vqa", "linear", "retrieval", "sentences", "detection", "segmentation"):
        folders[kind] = fine_tuned(folder / kind / "export", builder_of(kind))
    return {name: PretrainedModel.from_pretrained(path) for name, path in folders.items()}


@pytest.fixture(scope="module")
def page(models: Mapping[str, PretrainedModel]) -> "Page":
    return Page(models)


class Page:
    """The application, and the number of each kind of panel."""

    def __init__(self, models: Mapping[str, PretrainedModel]) -> None:
        panels = list(panels_of(models))
        self.numbers = {panel.kind: i for i, panel in enumerate(panels)}
        self.client = TestClient(server.make_app(panels), base_url=OWN)

    def ask(self, kind: str, **values: Any) -> dict[str, Any]:
        reply = self.client.post(f"/panels/{self.numbers[kind]}", json=values)
        assert reply.status_code == 200
        return reply.json()


def pixels_of(address: str) -> np.ndarray:
    data = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), 1), cv2.COLOR_BGR2RGB)


def test_each_model_has_the_panels_of_its_methods(page):
    assert list(page.numbers) == [
        "preview", "patches", "words", "answer", "classes", "nearest", "text_classes",
        "objects", "pixels",
    ]  # fmt: skip
    shown = page.client.get("/").text
    for kind in page.numbers:
        assert kind == "preview" or f'data-kind="{kind}"' in shown
    for name in ("try.js", "try.css"):
        assert page.client.get(f"/{name}").status_code == 200


def test_the_preview_is_the_decoded_image(page):
    answer = page.ask("preview", image=ENCODED)
    assert answer["size"] == "40 x 30"
    expected = cv2.cvtColor(cv2.imdecode(np.frombuffer(IMAGE, np.uint8), 1), cv2.COLOR_BGR2RGB)
    assert (pixels_of(answer["image"]) == expected).all()


def test_a_line_of_pixels_is_shown_small_and_not_cut_into_windows(page):
    line = base64.b64encode(drawn.image_bytes(1, size=(20_000, 2))).decode()
    answer = page.ask("preview", image=line)
    assert answer["size"] == "20000 x 2" and pixels_of(answer["image"]).shape == (1, 4096, 3)
    assert "at most 50 times the shorter one" in page.ask("pixels", image=line)["error"]


def test_answers_classes_and_nearest_texts_are_those_of_the_models(page, models):
    (best,) = models["vqa"].answer([IMAGE], ["one red circle"], top_k=5)
    rows = page.ask("answer", image=ENCODED, text=" one  red circle ")["rows"]
    assert [row["label"] for row in rows] == [each.label for each in best]
    assert rows[0]["score"] == pytest.approx(best[0].score, abs=1e-4)
    (best,) = models["linear"].classify([IMAGE])
    assert [row["label"] for row in page.ask("classes", image=ENCODED)["rows"]] == [
        each.label for each in best
    ]
    texts = ["a circle", "blue square", "left"]
    (cosines,) = models["retrieval"].similarity([IMAGE], texts)
    rows = page.ask("nearest", image=ENCODED, text="\n".join([*texts, "", texts[0]]))["rows"]
    assert [row["label"] for row in rows] == [texts[i] for i in np.argsort(-cosines)]
    rows = page.ask("text_classes", text="a circle\nblue")["rows"]
    (best,) = models["sentences"].classify([("a circle", "blue")])
    assert [row["label"] for row in rows] == [each.label for each in best]
    rows = page.ask("text_classes", text="a circle\na circle")["rows"]
    (best,) = models["sentences"].classify([("a circle", "a circle")])
    assert rows[0]["score"] == pytest.approx(best[0].score, abs=1e-4)


def test_objects_are_drawn_where_they_are(page, models):
    (found,) = models["detection"].detect([IMAGE])
    answer = page.ask("objects", image=ENCODED, least="0")
    assert [row["label"] for row in answer["rows"]] == [each.label for each in found]
    plain = pixels_of(page.ask("objects", image=ENCODED, least=0.9999)["drawn"])
    shown = pixels_of(answer["drawn"])
    assert shown.shape == plain.shape == (480, 640, 3)
    changed = (shown != plain).any(axis=2)
    scale = 640 / 40
    for each in found:
        left, top, width, height = (side * scale for side in each.box)
        edges = changed[int(top), int(left) + 1 : int(left + width) - 1]
        assert edges.mean() > 0.8 and height > 0
    limit = sorted(each.score for each in found)[len(found) // 2]
    rows = page.ask("objects", image=ENCODED, least=limit)["rows"]
    assert len(rows) == sum(each.score > limit for each in found) < len(found)
    assert page.ask("objects", image=ENCODED, least=0.9999)["note"].startswith("no object has")


def test_classes_of_pixels_are_drawn_over_the_image(page, models):
    (found,) = models["segmentation"].segment([IMAGE])
    answer = page.ask("pixels", image=ENCODED)
    assert [row["label"] for row in answer["rows"]] == list(found.labels)
    assert sum(row["score"] for row in answer["rows"]) == pytest.approx(1, abs=1e-3)
    shown = pixels_of(answer["drawn"]).astype(float)
    plain = cv2.resize(pixels_of(page.ask("preview", image=ENCODED)["image"]), (640, 480))
    classes = cv2.resize(found.label_map, (640, 480), interpolation=cv2.INTER_NEAREST)
    for place, name in enumerate(found.labels):
        color = (shown - 0.45 * plain)[classes == place] / 0.55
        np.testing.assert_allclose(np.median(color, axis=0), color_of(name), atol=4)


def test_masked_patches_are_drawn_and_the_others_left_as_they_are(page, models):
    model = models["pretrained"]
    answer = page.ask("patches", image=ENCODED, patches=[1, 2], text="one red circle")
    view = model.processor.pixels([IMAGE])[0]
    assert (pixels_of(answer["view"]) == view).all()
    side, kept = model.source.config.patch_size, np.arange(model.source.config.num_patches) > 2
    kept[0] = True
    for key in ("without_text", "with_text"):
        found = patches_of(pixels_of(answer[key]), side)
        assert (found[kept] == patches_of(view, side)[kept]).all()
        assert (found[~kept] != patches_of(view, side)[~kept]).any()
    assert "without text" in answer["note"] and "with text" in answer["note"]
    assert "with_text" not in page.ask("patches", image=ENCODED, patches=[1, 2])
    drawn_mask = page.ask("patches", image=ENCODED, seed=3)["patches"]
    assert len(drawn_mask) == round(0.4 * len(kept))
    assert drawn_mask == page.ask("patches", image=ENCODED, seed=3)["patches"]
    assert page.ask("patches", image=ENCODED, patches=[])["note"] == "no patch is masked"


def test_patches_of_a_view_are_joined_to_it_again():
    view = np.random.default_rng(0).integers(0, 255, (12, 12, 3), np.uint8)
    assert (joined(patches_of(view, 4)) == view).all()
    assert (patches_of(view, 4)[1] == view[:4, 4:8]).all()


def test_masked_words_are_predicted_with_and_without_the_image(page, models):
    (alone,) = models["pretrained"].fill_mask(["one [MASK] circle"], marker="[MASK]")
    (seen,) = models["pretrained"].fill_mask(["one [MASK] circle"], [IMAGE], marker="[MASK]")
    (columns,) = page.ask("words", image=ENCODED, text="one [MASK] circle")["masks"]
    assert [c["title"] for c in columns] == ["from the text alone", "with the image"]
    for column, (best,) in zip(columns, (alone, seen), strict=True):
        assert [row["label"] for row in column["rows"]] == [each.label for each in best]
    assert len(page.ask("words", text="one [MASK] [MASK]")["masks"]) == 2


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        ("preview", {}, "choose an image first"),
        ("preview", {"image": 5}, "choose an image first"),
        ("preview", {"image": "%%%"}, "the image did not arrive whole"),
        ("preview", {"image": "é"}, "the image did not arrive whole"),
        ("preview", {"image": "PGh0bWw+"}, "not an image (begins with"),
        ("preview", {"image": ENCODED[:400]}, "undecodable"),
        ("answer", {"image": ENCODED}, "type a question"),
        ("answer", {"image": ENCODED, "text": " \n"}, "type a question"),
        ("answer", {"text": "why?"}, "choose an image first"),
        ("nearest", {"image": ENCODED, "text": ""}, "type some texts"),
        ("nearest", {"image": ENCODED, "text": "\n".join(map(str, range(300)))}, "300 texts"),
        ("text_classes", {"text": "a\nb\nc"}, "a text, or two lines"),
        ("words", {"text": "one circle"}, "write [MASK] in place of a word"),
        ("words", {"text": "[MASK] " * 60}, "shorten it"),
        ("words", {"text": "[MASK] " * 9000}, "the text has 63000 characters, more than 20000"),
        ("objects", {"image": ENCODED, "least": "much"}, "the smallest score is a number from 0"),
        ("objects", {"image": ENCODED, "least": "nan"}, "the smallest score is a number from 0"),
        ("objects", {"image": ENCODED, "least": 10**400}, "the smallest score is a number from"),
        ("objects", {"image": ENCODED, "least": 1}, "the smallest score is a number from 0"),
        ("objects", {"image": ENCODED, "least": []}, "the smallest score is a number from 0"),
        ("objects", {}, "choose an image first"),
        ("pixels", {}, "choose an image first"),
        ("patches", {"image": ENCODED, "patches": [-1]}, "patches are numbers from 0 to"),
        ("patches", {"image": ENCODED, "patches": "all"}, "patches are numbers from 0 to"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence(page, kind, values, words):
    error = page.ask(kind, **values)["error"]
    assert words in error
    assert "\n" not in error


def test_requests_of_other_names_and_pages_are_refused(page):
    def status(**headers: str) -> int:
        return page.client.get("/", headers=headers).status_code

    for host in ("127.0.0.1:7860", "localhost:7860", "[::1]:7860", "192.168.1.7:7860"):
        assert status(host=host) == 200
    for host in ("evil.test", "evil.test:7860", "127.0.0.1.evil.test", "", "[::1", "a@b:1"):
        assert status(host=host) == 403
    assert status(host="127.0.0.1:7860", origin=OWN) == 200
    for origin in ("http://evil.test", "https://127.0.0.1:7860", "http://127.0.0.1:99", "null"):
        assert status(host="127.0.0.1:7860", origin=origin) == 403


def test_a_name_in_upper_case_is_the_same_machine():
    assert guards.OwnPageOnly(server.make_app([]), frozenset({"MyBox"})).is_own("mybox:7860")


def test_only_bounded_json_is_read(page, monkeypatch):
    def status(content: bytes, kind: str = "application/json", path: str = "/panels/0") -> int:
        headers = {"content-type": kind}
        return page.client.post(path, content=content, headers=headers).status_code

    assert status(b"{}") == 200
    assert status(b"{}", "text/plain") == 400
    assert status(b"[1]") == status(b"nope") == status(b"\xff\xff") == 400
    assert status(b"[" * 100_000) == 400
    for number in ("99", "01", "9" * 5000):
        assert status(b"{}", path=f"/panels/{number}") == 404
    monkeypatch.setattr(guards, "MAX_BYTES", 100)
    assert status(json.dumps({"image": "x" * 200}).encode()) == 413


def test_no_path_of_a_client_is_opened(page):
    for path in (
        "/../pyproject.toml",
        "/%2e%2e/server.py",
        "/page.html",
        "/static/try.js",
    ):
        assert page.client.get(path).status_code == 404


def test_a_failure_of_the_model_is_not_shown_to_the_page(page, models, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a secret path")

    monkeypatch.setattr(models["linear"], "classify", fail)
    reply = page.client.post(f"/panels/{page.numbers['classes']}", json={"image": ENCODED})
    assert reply.status_code == 500
    assert "secret" not in reply.text


def test_a_port_in_use_is_one_sentence():
    with server.listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(PipelineError, match=f"127.0.0.1:{port} cannot be used"):
            server.listen("127.0.0.1", port)
    with pytest.raises(PipelineError, match="choose another --port"):
        server.listen("127.0.0.1", 99_999)


@pytest.mark.parametrize("host", ["", " ", "a..b", "203.0.113.7"])
def test_a_host_that_is_not_this_machine_is_one_sentence(host):
    with pytest.raises(PipelineError, match="choose another --host") as refused:
        server.listen(host, 0)
    assert "\n" not in str(refused.value)


def test_half_a_request_neither_fails_the_server_nor_holds_up_its_end(monkeypatch, caplog):
    serving = server.server_of(server.make_app([Preview()]))
    monkeypatch.setattr(logging.getLogger("uvicorn"), "handlers", [caplog.handler])
    listening = server.listen("127.0.0.1", 0)
    address = listening.getsockname()
    thread = threading.Thread(target=serving.run, kwargs={"sockets": [listening]})
    thread.start()
    half = (
        b"POST /panels/0 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: 1000\r\n\r\n{"
    )
    with socket.create_connection(address) as leaving:
        leaving.sendall(half)
    with socket.create_connection(address) as waiting:
        waiting.sendall(half)
        url = f"http://127.0.0.1:{address[1]}/panels/0"
        asked = Request(
            url, json.dumps({"image": ENCODED}).encode(), {"Content-Type": "application/json"}
        )
        with urlopen(asked, timeout=60) as answer:
            assert json.load(answer)["size"]
        serving.should_exit = True
        thread.join(60)
    assert not thread.is_alive()
    assert not [record for record in caplog.records if record.exc_info]


def test_the_static_files_are_in_the_package():
    folder = Path(server.__file__).parent / "static"
    assert {path.name for path in folder.iterdir()} == {"page.html", "try.js", "try.css"}


class Captioner:
    """Stands for a model with a head for captions."""

    methods = ("caption",)

    def caption(self, images: list[np.ndarray]) -> list[str]:
        return [f"{len(image)} rows" for image in images]


def test_a_model_of_captions_shows_one():
    page = Page({"captioner": Captioner()})
    assert list(page.numbers) == ["preview", "caption"]
    assert page.ask("caption", image=ENCODED) == {"caption": "30 rows"}
