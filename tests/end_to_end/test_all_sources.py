"""Every source format on the miniature web: each row and document ends as the truth says.

The img2dataset engine is tested too, for the reasons that it distinguishes.
"""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from orchestration import Dataset
from orchestration.plan import latest_record
from orchestration.storage.store import Store

RECIPE = Path(__file__).parents[2] / "pipelines" / "recipes" / "all_sources.yaml"
IMAGES = ("cc3m", "cc12m", "sbu", "sbu_json", "own", "coco", "visual_genome", "webdataset")
TEXTS = ("stories", "wikipedia", "openwebtext", "books")
LARGE = 13
"Factor on the size of the recipe's miniature web: over 10,000 images."


def run(workdir: Path, scale: int, *settings: str) -> None:
    web = yaml.safe_load(RECIPE.read_text())["miniweb"]
    sizes = {key: n if key == "num_classes" else n * scale for key, n in web.items()}
    words = [f"miniweb={sizes}", *settings]
    command = [
        sys.executable, "-m", "pipelines.cli", "run", str(RECIPE), "--workdir", str(workdir),
        "--until", "data_report", *(word for each in words for word in ("--set", each)),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stdout + done.stderr


def rows(workdir: Path, stage: str, table: str) -> list[dict]:
    folder = workdir / stage / latest_record(Store(workdir))["stages"][stage]
    columns = {"data": ["sample_id"], "rejects": None}
    return Dataset.open(Store(folder)).table(table).read(columns=columns.get(table)).to_pylist()


def outcomes(workdir: Path, source: str) -> dict[str, str]:
    """Return the outcome of each row of a source: ``ok`` or the reason of its reject."""
    found: dict[str, str] = {}
    stages = [s for s in ("index", "download", "import") if (workdir / s / source).exists()]
    for stage in stages:
        rejects = rows(workdir, f"{stage}/{source}", "rejects")
        assert not found.keys() & {row["sample_id"] for row in rejects}
        found |= {row["sample_id"]: row["reason"] for row in rejects}
    images = rows(workdir, f"{stages[-1]}/{source}", "data")
    assert not found.keys() & {row["sample_id"] for row in images}
    return found | {row["sample_id"]: "ok" for row in images}


def truth(workdir: Path, name: str = "truth.parquet") -> list[dict]:
    return pq.read_table(workdir / "miniweb" / name).to_pylist()


def check_images(workdir: Path, reported_as: dict[str, str], packed_as: str = "ok") -> None:
    """Compare outcomes with the truth.

    ``reported_as`` maps a true outcome to the reason that the engine reports; ``packed_as`` is the
    outcome of images that are sent with gzip encoding.
    """
    lines = (workdir / "miniweb" / "own.csv").read_text().splitlines()
    packed = {f"own/{i:09d}" for i, line in enumerate(lines, 1) if "/gzip/" in line}
    for source in (*IMAGES, "imagenet21k"):
        expected = {
            row["sample_id"]: packed_as
            if row["sample_id"] in packed
            else reported_as.get(row["outcome"], row["outcome"])
            for row in truth(workdir)
            if row["source"] == source
        }
        assert expected, source
        found = outcomes(workdir, source)
        wrong = Counter(
            (expected.get(name), found.get(name))
            for name in expected.keys() | found.keys()
            if expected.get(name) != found.get(name)
        )
        assert not wrong, (source, wrong)


def check_texts(workdir: Path) -> None:
    for source in TEXTS:
        found: dict[str, str] = {}
        stage = f"documents/{source}"
        folder = workdir / stage / latest_record(Store(workdir))["stages"][stage]
        dataset = Dataset.open(Store(folder))
        found = {row["doc_id"]: "ok" for row in dataset.read(columns=["doc_id"]).to_pylist()}
        found |= {row["sample_id"]: row["reason"] for row in rows(workdir, stage, "rejects")}
        expected = {
            row["doc_id"]: row["outcome"]
            for row in truth(workdir, "text_truth.parquet")
            if row["source"] == source
        }
        assert not expected or found == expected, source


def check_copies(workdir: Path) -> None:
    """Check that curation finds the planted copies whose original was stored."""
    dropped = {row["sample_id"]: row["reason"] for row in rows(workdir, "curate", "rejects")}
    planted: Counter[str] = Counter()
    found: Counter[str] = Counter()
    copies = {row["sample_id"]: row for row in truth(workdir) if row["copy_of"]}
    for name, row in copies.items():
        if row["outcome"] == "ok" and row["source"] == "own":
            kind = "leaked" if row["copy_of"].startswith("coco_eval/") else row["copy_kind"]
            planted[kind] += 1
            found[kind] += name in dropped or row["copy_of"] in dropped
    sys.stdout.write(f"copies planted {dict(planted)}, found {dict(found)}\n")
    related = {name for name, row in copies.items() for name in (name, row["copy_of"])}
    for reason in ("duplicate", "near_duplicate", "evaluation_image"):
        mine = [name for name, why in dropped.items() if why == reason]
        true = sum(name in related for name in mine)
        sys.stdout.write(f"{reason}: {len(mine)} dropped, {true} of them in planted copies\n")
    assert planted and found["exact"] == planted["exact"]
    total = planted.total() - planted["exact"]
    assert found.total() - found["exact"] >= 0.7 * total


@pytest.mark.exhaustive
@pytest.mark.parametrize("scale", [1, LARGE])
def test_everything_ends_as_the_truth_says(tmp_path, scale):
    workdir = tmp_path / "work"
    run(workdir, scale)
    check_images(workdir, {})
    check_texts(workdir)
    check_copies(workdir)
    report = next(workdir.glob("data_report/*/data_report.html")).read_text()
    assert all(re.search(rf"\b{source}\b", report) for source in (*IMAGES, "imagenet21k"))


@pytest.mark.exhaustive
def test_img2dataset_reports_the_same_outcomes_where_it_distinguishes_them(tmp_path):
    workdir = tmp_path / "work"
    run(workdir, 1, "download.engine=img2dataset")
    reported_as = dict.fromkeys(("not_an_image", "unsupported_format"), "undecodable")
    check_images(workdir, reported_as, packed_as="undecodable")
