"""The pages in a browser: no error on the console, no missing image, two widths."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.report.comparison import Row
from pipelines.report.comparison_page import Variant, comparison_page
from pipelines.report.results import Result
from pipelines.report.run.run_report import write_run_report
from tests.pipelines.report.run_workdir import HOSTILE, RunWorkdir

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH"),
]
TIMEOUT_MS = 120_000
MISSING = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
WIDTH = "document.documentElement.scrollWidth"
SEEDS, STEPS = 3, [float(step) for step in range(0, 2000, 100)]


def opens_at_both_widths(path: Path, look: Callable[[Any], None]) -> None:
    """Open a page in a wide and in a narrow window; ``look`` tests it further."""
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
            page.goto(path.as_uri())
            assert page.evaluate(MISSING) == 0
            assert page.evaluate(WIDTH) <= width
            look(page)
        browser.close()
    assert not said


def test_a_run_report_opens_and_runs_no_text_of_strangers(tmp_path):
    workdir = RunWorkdir(tmp_path / "work")
    written = write_run_report(workdir.store, workdir.record)

    def look(page):
        for name in page.eval_on_selector_all("nav a", "all => all.map(a => a.hash)"):
            page.click(f'nav a[href="{name}"]')
            assert page.locator(name).is_visible()

    opens_at_both_widths(written.path, look)


def test_a_comparison_opens_and_draws_each_variant(tmp_path):
    names = ["joint", "separate", f"mask_mode={HOSTILE}"]
    variants = [Variant(name, Row(list(results(i, name)))) for i, name in enumerate(names)]
    curves = {
        (f"w{i}", str(seed)): {
            "loss/pair_mvlm": (STEPS, [step / 999 + i / 9 + seed / 50 for step in STEPS])
        }
        for i in range(len(names))
        for seed in range(SEEDS)
    }
    metrics = ["accuracy/pair_mvlm", "loss/pair_mvlm"]
    file = tmp_path / "comparison.html"
    file.write_text(comparison_page("comparison", variants, metrics, curves), "utf-8")

    def look(page):
        assert page.locator(".chart .range").count() == len(names) * len(metrics)
        assert page.locator(".chart .single").count() == len(names) * len(metrics) * SEEDS
        assert page.locator("svg.plot polygon").count() == len(names)
        for place in (".chart .value", "svg.plot polyline"):
            assert all(page.locator(place).nth(i).is_visible() for i in range(len(names)))

    opens_at_both_widths(file, look)


def results(number: int, name: str) -> list[Result]:
    """Results of a variant, one per seed."""
    return [
        Result(
            "evaluate",
            str(seed),
            f"w{number}",
            "pretraining",
            "",
            {"train.mask_mode": name},
            seed,
            {"accuracy/pair_mvlm": 0.7 + number / 50 + seed / 100, "loss/pair_mvlm": 1.0 - seed},
        )
        for seed in range(SEEDS)
    ]
