"""Intervals over seeds against SciPy's tests, and the page that shows them."""

import csv
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lxml import html
from scipy import stats
from typer.testing import CliRunner

from orchestration import Recipe, Stage, Workflow, feeding
from orchestration.errors import RecipeError
from orchestration.manifest import MANIFEST, file_of, read_manifest
from orchestration.params import StageParams
from orchestration.storage.store import Store
from pipelines.cli import app
from pipelines.report.charts import Interval, band_chart, color_of, whiskers
from pipelines.report.comparison import Row
from pipelines.report.comparison_page import Variant, comparison_page, metric_part
from pipelines.report.intervals import difference, estimate_of, main_metrics
from pipelines.report.results import Result, learning_curves, read_results
from tests.pipelines.finetune.committed import commit_stages

FIRST = {0: 0.081, 1: 0.094, 2: 0.077, 3: 0.101}
SECOND = {0: 0.060, 1: 0.081, 2: 0.049, 3: 0.083}


def row(values: Mapping[int | None, float], name: str = "accuracy/mlm") -> Row:
    """Results of one variant by seed."""
    return Row(
        [
            Result("evaluate", f"{seed}", "w", "pretraining", "", {}, seed, {name: value})
            for seed, value in values.items()
        ]
    )


@pytest.mark.parametrize("values", [[0.3, 0.5], [1.0, 2.0, 4.5, 3.25], list(FIRST.values())])
def test_the_interval_of_a_mean_is_that_of_scipy(values):
    found, expected = estimate_of(values), stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.count == len(values)


@pytest.mark.parametrize("seeds", [(0, 1), (0, 1, 2), (0, 1, 2, 3)])
def test_runs_with_the_same_seed_are_paired(seeds):
    others = [FIRST[s] for s in seeds]
    found = difference(row({s: SECOND[s] for s in reversed(seeds)}), row(FIRST), "accuracy/mlm")
    expected = stats.ttest_rel([SECOND[s] for s in seeds], others).confidence_interval(0.95)
    assert found is not None and found.how == "paired by seed" and found.count == len(seeds)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("other", [{7: 0.06, 8: 0.081, 9: 0.049}, {0: 0.06, 8: 0.09}])
def test_runs_without_two_seeds_in_common_are_compared_by_welch(other):
    found = difference(row(other), row(FIRST), "accuracy/mlm")
    expected = stats.ttest_ind(list(other.values()), list(FIRST.values()), equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert found is not None and found.how == "other seeds, Welch"
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize(
    ("own", "first"), [({0: 0.5}, {0: 0.25}), ({4: 0.5}, {0: 0.25}), ({0: 0.5}, {0: 0.25, 1: 0.25})]
)
def test_one_run_has_a_difference_and_no_interval(own, first):
    found = difference(row(own), row(first), "accuracy/mlm")
    assert found is not None and (found.mean, found.low, found.high) == (0.25, None, None)
    assert not found.excludes_zero


def test_a_seed_that_is_unknown_or_stands_twice_pairs_nothing():
    twice = Row([*row(SECOND).results, *row({0: 0.07}).results])
    for other in (twice, row({None: 0.5}), row({None: 0.1})):
        found = difference(other, row(FIRST), "accuracy/mlm")
        assert found is not None and "paired" not in found.how


def test_equal_values_give_an_interval_without_width_and_what_is_not_finite_is_left_out():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = estimate_of([0.5, 0.5, 0.5])
        same = difference(row({5: 0.5, 6: 0.5}), row({0: 0.5, 1: 0.5}), "accuracy/mlm")
    assert (found.low, found.high) == (0.5, 0.5)
    assert same is not None and (same.low, same.high) == (0, 0)
    part = metric_part([Variant("a", row({0: 0.5, 1: math.nan, 2: 0.7}))], "accuracy/mlm")
    assert part.lines[0].count == 2 and part.lines[0].note == "missing in 1 of 3 runs"


def test_what_cannot_be_compared_is_said():
    other = row({0: 0.5}, "accuracy/mim")
    part = metric_part([Variant("a", row(FIRST)), Variant("b", other)], "accuracy/mlm")
    assert [line.note for line in part.lines] == ["", "no run has this number"]
    assert part.lines[1].difference is None
    (line,) = metric_part([Variant("b", other)], "accuracy/mim").lines
    assert line.note == "one run: no interval"


def test_the_places_of_an_interval_are_those_of_its_numbers():
    found = estimate_of([2.0, 4.0])
    single = [(2.0, "seed 0"), (4.0, "seed 1")]
    shown = whiskers(
        [Interval("2", found.mean, found.low, found.high, single=single)], with_zero=False
    )
    assert shown is not None
    (drawn,) = shown.rows
    by_text = {float(tick.label): tick.at for tick in shown.ticks}
    (one, at_one), (two, at_two) = sorted(by_text.items())[:2]
    for value, at in ((3.0, drawn.at), (2.0, drawn.dots[0][0]), (found.high, drawn.high)):
        assert at == pytest.approx(
            at_one + (value - one) / (two - one) * (at_two - at_one), abs=0.1
        )


def test_a_scale_needs_not_hold_zero():
    shown = whiskers([Interval("1", 0.7, 0.69, 0.71)], with_zero=False)
    assert shown is not None and shown.zero is None and shown.rows[0].low == pytest.approx(5, abs=1)


def test_a_band_reaches_from_the_smallest_to_the_largest_run_where_all_have_a_value():
    runs = [{"loss": ([1, 2, 3], [4.0, 2.0, 0.0])}, {"loss": ([1, 3], [2.0, 1.0])}, {}]
    chart = band_chart("loss", "", {"1": [{}], "2": runs})
    assert chart is not None
    (line,) = chart.lines
    assert (line.title, line.color) == ("2", color_of(1))
    middle, outline = (
        [tuple(map(float, p.split(","))) for p in points.split()]
        for points in (line.points, line.band)
    )
    at = {float(tick.label): tick.at for tick in chart.y_ticks}
    assert [y for _, y in middle] == [at[3.0], pytest.approx((at[0.0] + at[1.0]) / 2, abs=0.1)]
    assert [y for _, y in outline] == [at[2.0], at[0.0], at[1.0], at[4.0]]
    assert band_chart("loss", "", {"1": [{}]}) is None


def test_a_page_escapes_every_name_and_is_the_same_each_time():
    bad = "<script>alert(1)</script>"
    variants = [Variant(bad, row(FIRST, bad)), Variant("$x$ & y", row(SECOND, bad))]
    curves = {("w", "0"): {f"loss/{bad}": ([1.0, 2.0], [3.0, 2.5])}}
    page = comparison_page(bad, variants, [bad], curves)
    assert page == comparison_page(bad, variants, [bad], curves)
    tree = html.fromstring(page)
    assert not tree.xpath("//script") and not tree.xpath("//*[@src or @href]")
    assert bad in tree.text_content() and f"loss/{bad}" in tree.text_content()
    assert len(tree.xpath("//i[@class='single']")) == 8
    assert "paired by seed (4); excludes 0" in tree.text_content()


class Params(StageParams):
    """Parameters of a training."""

    masking: str
    seed: int


def commit_training(workdir: Store, masking: str, seed: int, numbers: Mapping[str, float]) -> None:
    """Commit a pretraining with a history, and its evaluation with another seed."""
    params = Params(masking=masking, seed=seed)
    pretrain = Stage("pretrain", lambda c: None, params, seed=seed)
    evaluate = Stage(
        "evaluate", lambda c: None, StageParams(), feeding(checkpoint=pretrain), seed=9
    )
    workflow = Workflow(Recipe(name=masking), (pretrain, evaluate))
    commit_stages(workflow, workdir, {"evaluate": numbers})
    folder = workdir.sub(workflow.plan(workdir)[0].path)
    steps = list(range(1, 11))
    table = pa.table({"step": steps, "loss/mlm": [5 / step + seed for step in steps]})
    Path(folder.native_path("history")).mkdir()
    pq.write_table(table, folder.native_path("history/00000001-00000010-0.parquet"))
    history = file_of(folder, "history/00000001-00000010-0.parquet")
    manifest = read_manifest(folder).model_copy(update={"files": [history]})
    folder.write_bytes(MANIFEST, manifest.to_bytes())


@pytest.fixture
def workdir(tmp_path) -> Store:
    store = Store(tmp_path / "work")
    for masking, values in (("a", FIRST), ("b", SECOND)):
        for seed, value in values.items():
            commit_training(
                store, masking, seed, {"grounding/words/gap": value, "accuracy/mlm": 0.5}
            )
    return store


def test_the_seed_of_a_result_is_that_of_its_training(workdir):
    assert sorted(r.seed for r in read_results(workdir) if r.seed is not None) == [
        0,
        0,
        1,
        1,
        2,
        2,
        3,
        3,
    ]


def test_a_history_that_is_lost_leaves_the_others_and_is_told(workdir):
    first, *others = read_results(workdir)
    assert first.training is not None
    told: list[str] = []
    assert learning_curves(workdir, first, told.append)["loss/mlm"][0] == list(range(1, 11))
    assert not told
    workdir.sub(first.training).remove("history")
    assert learning_curves(workdir, first, told.append) == {}
    workdir.sub(first.training).remove(MANIFEST)
    assert learning_curves(workdir, first, told.append) == {}
    where = f"{workdir.uri}/{first.training}"
    assert told == [
        f"metrics of steps 1-10 are lost: {where}/history/00000001-00000010-0.parquet is missing",
        f"the curve of a run is left out: {where} is gone",
    ]
    assert all(learning_curves(workdir, other, pytest.fail) for other in others)


def compare(workdirs: Sequence[Store], *options: str):
    return CliRunner().invoke(app, ["compare", *(store.uri for store in workdirs), *options])


def test_the_command_prints_intervals_and_writes_a_page(workdir, tmp_path):
    file = tmp_path / "page.html"
    done = compare([workdir], "--html", str(file))
    assert done.exit_code == 0, done.exception
    expected = stats.ttest_rel(list(SECOND.values()), list(FIRST.values())).confidence_interval()
    words = f"{expected.low:.4f} to {expected.high:.4f}"
    tree = html.fromstring(file.read_text())
    assert words in done.output and words in tree.text_content()
    assert tree.xpath("//h1")[0].text == "comparison"
    captions = [element.text for element in tree.xpath("//figcaption/b")]
    assert captions == ["grounding/words/gap", "accuracy/mlm", "loss/mlm"]
    assert len(tree.xpath("//polygon")) == len(tree.xpath("//polyline")) == 2
    assert "2: masking=b" in tree.text_content()
    chosen = compare([workdir], "--html", str(file), "--metric", "accuracy/mlm")
    assert chosen.exit_code == 0
    captions = [e.text for e in html.fromstring(file.read_text()).xpath("//figcaption/b")]
    assert captions == ["accuracy/mlm", "loss/mlm"]


def test_a_damaged_history_is_told_by_the_command_and_on_its_page(workdir, tmp_path):
    first, *_ = read_results(workdir)
    path = Path(workdir.native_path(f"{first.training}/history/00000001-00000010-0.parquet"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    file = tmp_path / "page.html"
    done = compare([workdir], "--html", str(file))
    assert done.exit_code == 0, done.exception
    line = f"metrics of steps 1-10 are lost: {path} has another content"
    assert done.output.splitlines().count(line) == 1
    tree = html.fromstring(file.read_text())
    assert [element.text for element in tree.xpath("//p[@class='differs']")] == [line]
    assert len(tree.xpath("//polyline")) == 2  # the other runs of the variant are drawn


def test_the_first_workdir_that_is_named_is_what_the_others_are_compared_with(workdir, tmp_path):
    other = Store(tmp_path / "other")
    for seed in (0, 1):
        commit_training(other, "A", seed, {"grounding/words/gap": 0.5})
    file = tmp_path / "all.csv"
    for workdirs, order in (([workdir, other], "abA"), ([other, workdir], "Aab")):
        assert compare(workdirs, "--csv", str(file)).exit_code == 0
        rows = csv.DictReader(file.open())
        assert [row["train.masking"] for row in rows] == list(order)


def test_an_unknown_metric_and_a_page_in_no_folder_are_refused(workdir, tmp_path):
    done = compare([workdir], "--metric", "grounding/word/gap")
    assert isinstance(done.exception, RecipeError)
    assert "did you mean grounding/words/gap" in str(done.exception)
    done = compare([workdir], "--html", str(tmp_path / "missing" / "page.html"))
    assert "--html" in str(done.exception) and "cannot be written" in str(done.exception)


def test_the_main_metrics_are_those_that_there_are():
    assert main_metrics([row(FIRST, "accuracy/knn"), row(FIRST), row(FIRST, "loss/mlm")]) == [
        "accuracy/mlm", "accuracy/knn",
    ]  # fmt: skip
