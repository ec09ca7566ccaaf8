"""The comparison of stage outputs with what was recorded; ``test_demo`` compares a run."""

import copy
import json

import pytest

from tests.end_to_end.stage_outputs import PACKAGES, RECORD, ROOT, judge, names_only


def described(version: int = 1, rows: str = "5", inputs: tuple[str, ...] = ()) -> dict:
    return {
        "version": version,
        "params": "p",
        "inputs": {"role": list(inputs)},
        "tables": {"data": {"rows": rows, "text: string": rows}},
        "files": {"report.json": "r"},
        "numbers": {"mean": 1.0},
    }


RECORDED = {
    "index": described(),
    "download": described(inputs=("index",)),
    "curate": described(inputs=("download",)),
}
FILES = {name: f"pipelines/{name}.py" for name in (*RECORDED, "new")}


def changed(stage: str, **values) -> dict:
    now = copy.deepcopy(RECORDED)
    now[stage] |= values
    return now


def test_an_equal_run_needs_nothing():
    assert judge(RECORDED, copy.deepcopy(RECORDED), FILES) == []


@pytest.mark.parametrize(
    "values",
    [
        {"tables": {"data": {"rows": "5", "text: string": "other"}}},
        {"tables": {"data": {"rows": "5", "text: large_string": "5"}}},
        {"files": {"report.json": "other"}},
        {"files": {}},
        {"numbers": {"mean": 2.0}},
    ],
)
def test_another_output_under_the_same_version_is_a_fault_of_that_stage_alone(values):
    now = changed("index", **values)
    now["curate"] = described(rows="4", inputs=("download",))
    now["download"] = described(rows="4", inputs=("index",))
    (finding,) = judge(RECORDED, now, FILES)
    assert "raise the version of index in pipelines/index.py" in finding
    assert "download" not in finding


def test_a_fault_names_what_differs():
    (finding,) = judge(RECORDED, changed("curate", numbers={"mean": 2.0}), FILES)
    assert "under the same version 1 (numbers mean)" in finding


@pytest.mark.parametrize(
    ("now", "names"),
    [
        (changed("index", version=2), "index"),
        (changed("index", params="other"), "index"),
        (changed("index", version=2, files={}), "index"),
        ({**RECORDED, "new": described()}, "new"),
        ({"index": RECORDED["index"]}, "curate, download"),
        (changed("curate", inputs={"role": ["index"]}), "curate"),
    ],
)
def test_an_expected_difference_must_be_recorded(now, names):
    (finding,) = judge(RECORDED, now, FILES)
    assert finding.startswith(f"not as recorded: {names};") and "make stage-outputs" in finding


def test_a_raised_version_of_an_input_with_the_same_output_excuses_nothing():
    now = changed("index", version=2)
    now["download"] = described(rows="4", inputs=("index",))
    (finding,) = judge(RECORDED, now, FILES)
    assert "raise the version of download" in finding


def test_a_stage_that_follows_a_changed_output_is_no_fault():
    now = changed("index", version=2, files={})
    now["download"] = described(rows="4", inputs=("index",))
    (finding,) = judge(RECORDED, now, FILES)
    assert finding.startswith("not as recorded: index, download;")


def test_names_are_compared_without_digests():
    names = names_only(RECORDED)["index"]
    assert names["tables"] == {"data": ["rows", "text: string"]}
    assert names["files"] == {"report.json": ""} and names["numbers"] == {"mean": ""}


def test_the_recorded_packages_are_the_pinned_ones():
    recorded = json.loads(RECORD.read_text())["environment"]
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    upgraded = [name for name in PACKAGES if recorded[name] != pinned[name]]
    assert upgraded == [], "run `make stage-outputs` with the pinned packages"
