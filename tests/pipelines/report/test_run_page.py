"""The run report in a browser: no error on the console, no missing image, two widths."""

import shutil

import pytest

from pipelines.report.run.run_report import write_run_report
from tests.pipelines.report.run_workdir import RunWorkdir

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH"),
]
TIMEOUT_MS = 120_000
MISSING = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
WIDTH = "document.documentElement.scrollWidth"


def test_the_page_opens_at_both_widths_and_runs_no_text_of_strangers(tmp_path):
    workdir = RunWorkdir(tmp_path / "work")
    written = write_run_report(workdir.store, workdir.record)
    said: list[str] = []
    with playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for width in (1280, 390):
            page = browser.new_page(viewport={"width": width, "height": 800})
            page.set_default_timeout(TIMEOUT_MS)
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
            page.on("requestfailed", lambda failed: said.append(failed.url))
            page.goto(written.path.as_uri())
            assert page.evaluate(MISSING) == 0
            assert page.evaluate(WIDTH) <= width
            for name in page.eval_on_selector_all("nav a", "all => all.map(a => a.hash)"):
                page.click(f'nav a[href="{name}"]')
                assert page.locator(name).is_visible()
        browser.close()
    assert not said
