"""The page in a real browser: an image is dropped, results appear, a broken file is a sentence."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import PretrainedModel
from pipelines.try_page import server
from pipelines.try_page.panels import panels_of
from tests.pipelines.apply import drawn
from tests.pipelines.inference.models import builder_of, fine_tuned, pretrained

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH"),
]
TIMEOUT_MS = 120_000


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("models")
    folders = {"pretrained": pretrained(folder / "pretrained" / "export")}
    for kind in ("vqa", "retrieval", "detection", "segmentation"):
        folders[kind] = fine_tuned(folder / kind / "export", builder_of(kind))
    models = {name: PretrainedModel.from_pretrained(path) for name, path in folders.items()}
    listening = server.listen("127.0.0.1", 0)
    running = server.server_of(server.make_app(list(panels_of(models))))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    running.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=[1280, 390])
def page(
    request: pytest.FixtureRequest, browser: "playwright.Browser", address: str
) -> Iterator["playwright.Page"]:
    """The page in a wide and in a narrow window, without an error on its console."""
    said: list[str] = []
    page = browser.new_page(viewport={"width": request.param, "height": 800})
    page.set_default_timeout(TIMEOUT_MS)
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("requestfailed", lambda failed: said.append(failed.url))
    page.goto(address)
    yield page
    assert page.evaluate("document.documentElement.scrollWidth") <= request.param
    page.close()
    assert not said


def test_an_image_is_dropped_asked_about_and_masked(page, tmp_path: Path):
    (image,) = drawn.write_images(tmp_path, 1)
    (tmp_path / "page.jpg").write_bytes(b"<html>not found</html>")
    page.set_input_files("#file", tmp_path / "page.jpg")
    page.wait_for_selector("#about.error")
    assert page.inner_text("#about").startswith("page.jpg: not an image")
    assert not page.is_visible("#view")

    page.fill("[data-kind=nearest] textarea", "one red circle\nblue square")
    page.set_input_files("#file", image)
    page.wait_for_selector("[data-kind=nearest] tr:nth-child(2)")
    assert page.inner_text("#about") == "000.png, 40 x 30"
    assert page.is_visible("#view")
    assert page.is_visible("[data-kind=patches] img.without_text")
    assert not page.is_visible("[data-kind=patches] img.with_text")
    labels = page.locator("[data-kind=nearest] td:first-child").all_inner_texts()
    assert sorted(labels) == ["blue square", "one red circle"]

    page.fill("[data-kind=answer] input", "one red circle")
    page.click("[data-kind=answer] button")
    page.wait_for_selector("[data-kind=answer] tr:nth-child(5)")
    page.fill("[data-kind=words] input", "one [MASK] circle")
    page.press("[data-kind=words] input", "Enter")
    page.wait_for_selector("[data-kind=words] h3 >> text=with the image")
    page.click("[data-kind=answer] button")

    patches = page.locator("[data-kind=patches] .grid i")
    before = patches.nth(0).get_attribute("class") or ""
    patches.nth(0).click()
    assert (patches.nth(0).get_attribute("class") or "") != before
    page.fill("[data-kind=patches] input", "one red circle")
    page.click("[data-kind=patches] button >> text=Predict")
    page.wait_for_selector("[data-kind=patches] img.with_text")
    assert page.locator("[data-kind=patches] .grid i.off").count() > 0


def test_objects_and_classes_of_pixels_are_drawn(page, tmp_path: Path):
    (image,) = drawn.write_images(tmp_path, 1)
    page.fill("[data-kind=objects] input", "0")
    page.set_input_files("#file", image)
    for kind in ("objects", "pixels"):
        page.wait_for_selector(f"[data-kind={kind}] tr")
        shown = page.locator(f"[data-kind={kind}] img.drawn")
        assert shown.evaluate("each => each.complete && each.naturalWidth") == 640
        assert shown.bounding_box()["width"] > 100
    number = page.locator("[data-kind=objects] tr").count()
    page.fill("[data-kind=objects] input", "0.99")
    page.press("[data-kind=objects] input", "Enter")
    page.wait_for_selector("[data-kind=objects] .wait >> text=no object has a score above 0.99")
    assert number == 10 and page.locator("[data-kind=objects] tr").count() == 0


def test_an_empty_question_and_a_missing_image_are_sentences(page):
    page.click("[data-kind=answer] button")
    page.wait_for_selector("[data-kind=answer] .error >> text=type a question")
    page.fill("[data-kind=answer] input", "one red circle")
    page.click("[data-kind=answer] button")
    page.wait_for_selector("[data-kind=answer] .error >> text=choose an image first")
