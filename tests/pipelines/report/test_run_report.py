"""The run report: its parts against what was committed, hostile text, and unfinished workflows.

``test_run_page.py`` opens it in a browser; the demo's report is tested with its workdir.
"""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dataprep.images import decode_stored
from orchestration.manifest import MANIFEST
from pipelines.cli import app
from pipelines.report.charts import Interval, line_chart, nice_ticks, whiskers
from pipelines.report.run.run_report import HTML_FILE, page_of, run_report
from pipelines.report.run.stages import num_gpus
from pipelines.report.run.trainings import thinned
from tests.pipelines.report.run_workdir import (
    HOSTILE,
    NUM_ROWS,
    NUM_STEPS,
    RECIPE,
    SECONDS,
    STAGES,
    RunWorkdir,
)

SECTIONS = {
    "summary": 0, "stages": 0, "data": 0, "tokenizers": 3, "training-1": 7, "evaluation": 8,
    "patches": 8, "words": 8, "neighbors": 8, "recipe": 0,
}  # fmt: skip
"Sections of the page, with the number of complete stages from which on it has them."


class Page(HTMLParser):
    """Tags, headings and visible text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def ids(self) -> list[str]:
        return [attrs["id"] for tag, attrs in self.tags if tag == "h2"]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> RunWorkdir:
    return RunWorkdir(tmp_path_factory.mktemp("run") / "work")


@pytest.fixture(scope="module")
def report(workdir):
    return run_report(workdir.store, workdir.record)


@pytest.fixture(scope="module")
def page(report) -> Page:
    return Page(page_of(report))


def test_the_page_has_every_section_and_a_table_of_contents_that_leads_to_it(page):
    assert page.ids() == list(SECTIONS)
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert links == [f"#{name}" for name in SECTIONS]


def test_the_page_holds_all_that_it_shows(page):
    for tag, attrs in page.tags:
        assert tag not in ("script", "link", "iframe", "object")
        assert not {name for name in attrs if name.startswith("on")}
        if tag == "img":
            kind, _, data = attrs["src"].partition(",")
            assert kind == "data:image/jpeg;base64"
            assert decode_stored(base64.b64decode(data), "image").size
    assert sum(tag == "img" for tag, _ in page.tags) > 20


def test_untrusted_text_is_shown_as_text(page):
    assert page.text.count("<script>alert('x')</script>") >= 8
    assert not [tag for tag, attrs in page.tags if attrs.get("src") == "x"]


def test_rows_rejects_time_and_gpu_hours_are_those_of_the_outputs(report, page):
    download = report.lines[0]
    assert download.rows.rows_in == NUM_ROWS + 5 and download.rows.num_kept == NUM_ROWS
    assert download.rows.rejects == [("http_404", 3), ("dns", 2)]
    assert report.seconds == SECONDS * len(STAGES)
    hours = {line.name: line.gpu_hours for line in report.lines}
    assert hours["pretrain"] == 2.0 and hours["image_tokens"] == 0.5 and hours["curate"] == 0
    assert hours["image_tokenizer"] is None and report.gpu_hours is None
    assert "http_404 3, dns 2" in page.text


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("pretrain", 4), ("image_tokens", 1), ("pair_tokens", 0), ("image_tokenizer", None),
        ("download/own", 0), ("name", 0),
    ],
)  # fmt: skip
def test_the_gpus_of_a_stage_are_those_that_the_recipe_reserves(stage, expected):
    assert num_gpus(RECIPE, stage) == expected


def test_numbers_stand_beside_their_baselines(page):
    text = " ".join(page.text.split())
    for words in ("55.0%", "10.0%", "+21.3 points (+18.0 to +24.5)", "k-NN: labels of images",
                  "90.0% of the codes occur, 2 do not", "recall at 10", "50.0%"):  # fmt: skip
        assert words in text, words


def test_masked_pieces_are_marked_and_right_ones_stand_out(page):
    marked = [i for i, (tag, _) in enumerate(page.tags) if tag == "mark"]
    assert len(marked) == 2
    right = [attrs for tag, attrs in page.tags if tag == "span" and attrs.get("class") == "answer"]
    assert len(right) == 1  # the first masked piece with its own image; the others are wrong


def test_the_nearest_images_are_those_of_the_most_similar_features(report):
    for query in report.nearest_images:
        assert query.found[0].title == query.title and query.found[0].is_right
        assert query.found[0].score == pytest.approx(1)
        assert not any(found.is_right for found in query.found[1:])
    assert [query.title for query in report.nearest_images] == [f"class {i}" for i in range(1, 5)]
    assert all(query.found[0].is_right for query in report.likely_images)
    assert {query.title for query in report.likely_images} == {"a red circle"}


@pytest.mark.parametrize("complete", [0, 1, 3, 6, 7, 8])
def test_an_unfinished_workflow_has_the_sections_of_what_there_is(tmp_path, complete):
    workdir = RunWorkdir(tmp_path / "work", complete)
    workdir.fail(STAGES[complete], f"the disk is full {HOSTILE}")
    page = Page(page_of(run_report(workdir.store, workdir.record)))
    assert page.ids() == [name for name, first in SECTIONS.items() if complete >= first]
    assert "the disk is full <script>" in page.text and "failed" in page.text
    assert f"{complete} of {len(STAGES)} stages are complete" in page.text


def test_damaged_outputs_are_named_and_the_others_shown(tmp_path):
    workdir = RunWorkdir(tmp_path / "work")
    workdir.folder("curate").write_bytes(MANIFEST, b"{")
    for path in (tmp_path / "work" / "evaluate").rglob("shown_words/*.parquet"):
        path.write_bytes(b"no Parquet")
    report = run_report(workdir.store, workdir.record)
    assert [line.name for line in report.lines if line.state == "damaged"] == ["curate"]
    assert len(report.notes) == 1 and "shown_words" in report.notes[0]
    assert report.images and not report.captions
    assert report.notes[0] in Page(page_of(report)).text


def test_the_command_writes_the_page_and_says_where(workdir, monkeypatch):
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    done = CliRunner().invoke(app, ["report", "--workdir", workdir.store.uri, "--open"])
    assert done.exit_code == 0, done.exception
    path = Path(workdir.workflow.native_path(HTML_FILE))
    assert re.search(rf"^run report +{re.escape(str(path))}$", done.output, re.M)
    assert opened == [path.as_uri()]
    assert page_of(run_report(workdir.store, workdir.record)) == path.read_text()  # the same again


def test_the_curves_are_those_of_the_history(report):
    (training,) = report.trainings
    assert training.steps == NUM_STEPS
    assert [chart.title for chart in training.charts] == [
        "loss", "accuracy at masked positions", "gradient norm", "learning rate"
    ]  # fmt: skip
    assert "no MLflow run" in training.missing


def test_a_curve_reaches_from_corner_to_corner_of_its_chart():
    chart = line_chart("loss", "nats", {"loss": ([1, 2, 3], [4.0, 2.0, 0.0])}, {"loss": "loss"})
    first, *_, last = [tuple(map(float, p.split(","))) for p in chart.lines[0].points.split()]
    assert first == (48, 8) and last == (350, 178)  # y grows downward
    assert [tick.label for tick in chart.y_ticks] == ["0", "1", "2", "3", "4"]
    assert line_chart("loss", "nats", {}, {"loss": "loss"}) is None


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.25, 0.5, 0.75, 1]), (3, 3, [3]), (-1, 1, [-1, -0.5, 0, 0.5, 1])],
)
def test_ticks_are_round_numbers_that_cover_the_range(low, high, expected):
    assert nice_ticks(low, high) == pytest.approx(expected)


def test_intervals_lie_on_one_scale_with_zero():
    shown = whiskers(
        [Interval("gap", 0.2, 0.1, 0.3), Interval("control", 0.0, -0.1, 0.1)], with_zero=True
    )
    gap, control = shown.rows
    assert shown.zero == pytest.approx(control.at) and control.low < shown.zero < control.high
    assert gap.low == pytest.approx(control.high) and gap.at < gap.high < 100
    assert whiskers([], with_zero=True) is None


def test_many_points_become_few_means():
    steps, values = thinned({"loss": ([*range(1000)], [float(i) for i in range(1000)])})["loss"]
    assert 150 < len(steps) <= 240 and values[0] == pytest.approx(steps[0])
    assert thinned({"memory/host_bytes": ([1.0], [2e9])})["memory/host_bytes"] == ([1.0], [2.0])
