"""The rounds of curation give what comparing every image with every other gives.

Random corpora are planted with equal originals, near duplicates on both sides of every limit,
evaluation images, captions that break rules or repeat, and hashes that many different images have.
"""

import os
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataprep.schemas import IMAGES
from orchestration import Dataset, Stage
from orchestration.params import StageParams
from orchestration.storage.store import Store
from pipelines.curate import leaders
from pipelines.curate.curate import Params, stage
from tests.committing import commit_tables
from tests.in_process import run_in_process
from tests.pipelines.curate.brute_force import Row, curate

SOURCES = ("0e", "1e", "2p", "3p", "4i", "5i")
ROLES = ("evaluation_sets", "pairs", "images")
CAPTIONS = [
    "a dog",
    "A dog.",
    "one cat here",
    "cat",
    "",
    "  ",
    "two red birds fly",
    "so many words",
]
PARTITIONS = (1, 2, 8)


def corpus(seed: int, num_rows: int) -> list[Row]:
    """Rows of two datasets of each role, in the order of the recipe."""
    rng = np.random.default_rng(seed)
    num_looks = int(rng.integers(1, 5))
    hashes = rng.integers(0, 2**64, num_looks, np.uint64)
    colors = rng.integers(0, 256, (num_looks, 48))
    contrast = rng.choice([0, 3, 9, 14, 60], num_looks)
    grays = 128 + contrast[:, None] * rng.choice([-1, 1], (num_looks, 256))
    originals = [f"{word:064x}" for word in range(2 * num_rows)]
    numbers: Counter[str] = Counter()
    sources = sorted(rng.choice(SOURCES, num_rows, p=[0.04, 0.04, 0.4, 0.22, 0.2, 0.1]).tolist())
    rows: list[Row] = []
    for source in sources:
        copies = [row for row in rows if rng.random() < 0.1]
        which = int(rng.integers(num_looks))
        flips = rng.choice(64, int(rng.choice([0, 0, 1, 2, 5, 9])), replace=False)
        look = {
            "phash": int(hashes[which]) ^ sum(1 << int(bit) for bit in flips),
            "colors": _moved(rng, colors[which], int(rng.choice([0, 5, 12, 30]))),
            "gray": _moved(rng, grays[which], int(rng.choice([0, 0, 1, 8, 40]))),
            "size": (int(rng.choice([100, 100, 100, 104, 125, 900])), 100),
        }
        is_equal = bool(copies) and rng.random() < 0.5
        if copies and rng.random() < 0.5:
            look = {name: getattr(copies[0], name) for name in look}
        captions = rng.choice(CAPTIONS, int(rng.choice([0, 1, 1, 2, 3]))).tolist()
        rows.append(
            Row(
                name=f"{source}/{numbers[source]}",
                role=ROLES["epi".index(source[1])],
                sha256=copies[0].sha256 if is_equal else str(rng.choice(originals)),
                captions=[] if source[1] == "i" else captions,
                **look,
            )
        )
        numbers[source] += 1
    return rows


def _moved(rng: np.random.Generator, values: np.ndarray, most: int) -> np.ndarray:
    moved = values + rng.integers(-most, most + 1, values.shape)
    return np.clip(moved, 0, 255).astype(np.uint8)


def as_table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "sample_id": row.name,
                "source": row.name.split("/")[0],
                "sha256": row.sha256,
                "phash": f"{row.phash:016x}",
                "colors": row.colors.tobytes(),
                "gray": row.gray.tobytes(),
                "original_width": row.size[0],
                "original_height": row.size[1],
                "captions": row.captions,
            }
            for row in rows
        ],
        IMAGES,
    )


def by_rounds(root: Path, rows: list[Row], params: Params, num_partitions: int) -> Dataset:
    inputs: dict[str, Store] = {}
    stages: dict[str, list[Stage]] = {role: [] for role in ROLES}
    for source in SOURCES:
        mine = [row for row in rows if row.name.startswith(source)]
        inputs[source] = Store(root / source)
        tables = [as_table(mine[:3]), as_table(mine[3:])]
        commit_tables(inputs[source], tables, row_group_rows=2)
        stages[ROLES["epi".index(source[1])]].append(Stage(source, lambda _: None, StageParams()))
    partition_rows = -(-len(rows) // num_partitions)
    params = params.model_copy(update={"partition_rows": partition_rows})
    folder = Store(root / str(num_partitions) / "curate")
    run_in_process(stage(params, **stages, held_out=[]), folder, inputs)
    return Dataset.open(folder)


def check(dataset: Dataset, rows: list[Row], params: Params) -> None:
    sources = [row for row in rows if not row.is_evaluation]
    for role in ("pairs", "images"):
        found = dataset.table(role).read().to_pylist()
        expected = [row for row in sources if row.role == role and row.reason is None]
        assert [row["sample_id"] for row in found] == [row.name for row in expected]
        assert [row["captions"] for row in found] == [row.merged for row in expected]
        for row in found:
            source, _, number = row["sample_id"].partition("/")
            assert (row["dataset"], row["row"]) == (int(source[0]) - 2, int(number))
    reasons = {r["sample_id"]: r["reason"] for r in dataset.table("rejects").read().to_pylist()}
    assert reasons == {row.name: row.reason for row in sources if row.reason is not None}
    assert dataset.manifest.num_rows_in == len(sources)
    check_captions(dataset, sources, params)


def check_captions(dataset: Dataset, sources: list[Row], params: Params) -> None:
    """Each caption of a pair that is kept or merged is in one of two tables."""
    merging = [
        row
        for row in sources
        if row.role == "pairs"
        and (
            row.reason is None
            or (
                row.reason in ("duplicate", "near_duplicate")
                and (params.merge_near_duplicate_captions or not row.by_look)
                and not row.kept.is_evaluation
            )
        )
    ]
    kept = Counter(c for r in dataset.table("pairs").read().to_pylist() for c in r["captions"])
    lost = dataset.table("caption_rejects").read().to_pylist()
    names = {row.name for row in merging}
    lost_of_these = Counter(row["detail"] for row in lost if row["sample_id"] in names)
    # The detail of a reject is one line without spaces at its ends.
    kept = Counter(" ".join(c.split()) for c in kept.elements())
    assert kept + lost_of_these == Counter(
        " ".join(c.split()) for row in merging for c in row.captions
    )
    counters = dataset.manifest.counters
    for reason, number in Counter(row["reason"] for row in lost).items():
        assert counters[f"captions/{reason}"] == number


RANDOM = {
    "seed": st.integers(0, 2**32),
    "num_rows": st.integers(0, 40),
    "distance": st.sampled_from([None, 0, 3, 6, 8]),
    "words": st.sampled_from([(1, 256), (2, 3)]),
    "placeholder": st.sampled_from([2, 5]),
    "merge_near": st.booleans(),
    "max_merged": st.sampled_from([0, 1, 16]),
    "max_leaders": st.sampled_from([1, 2, 64]),
}


@settings(max_examples=30)
@given(**RANDOM)
def test_a_random_corpus_is_curated_as_by_brute_force(**drawn):
    compare(**drawn)


@pytest.mark.exhaustive
@settings(max_examples=1000)
@given(**RANDOM)
def test_many_random_corpora_are_curated_as_by_brute_force(**drawn):
    compare(**drawn)


def compare(
    seed, num_rows, distance, words, placeholder, merge_near, max_merged, max_leaders
) -> None:
    """Curate with each number of partitions: the same bytes, and the rows of the brute force."""
    params = Params(
        max_hash_distance=distance,
        min_caption_words=words[0],
        max_caption_words=words[1],
        min_placeholder_captions=placeholder,
        merge_near_duplicate_captions=merge_near,
        max_merged_captions=max_merged,
        max_aspect_ratio=8,
        slice_rows=7,
    )
    rows = corpus(seed, num_rows)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(leaders, "MAX_LEADERS", max_leaders)
        patch.setattr(os, "fsync", lambda _: None)
        made = [by_rounds(Path(folder), rows, params, number) for number in PARTITIONS]
        curate(rows, params, max_leaders)
        check(made[0], rows, params)
        first, *others = (contents(dataset) for dataset in made)
        assert all(other == first for other in others)


def contents(dataset: Dataset) -> dict[str, bytes]:
    """Every file of the output by path; the files of the rounds are gone."""
    found = {path: dataset.folder.read(path) for path, _ in dataset.folder.walk()}
    assert not any(path.startswith("rounds") for path in found)
    slices = {part.slice for part in dataset.manifest.parts} - {"empty"}
    assert {path for path in found if path.startswith("parts/") and "empty" not in path} == {
        f"parts/{name}.json" for name in slices
    }
    return found


def test_a_run_that_was_stopped_may_continue_with_other_partitions(tmp_path, monkeypatch):
    rows, params = corpus(3, 200), Params(slice_rows=30)
    calm = contents(by_rounds(tmp_path / "calm", rows, params, 3))
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.curate.curate.move_captions", interrupted)
        with pytest.raises(KeyboardInterrupt):
            by_rounds(tmp_path / "stopped", rows, params, 8)
    (tmp_path / "stopped" / "8").rename(tmp_path / "stopped" / "3")
    assert list((tmp_path / "stopped").glob("3/curate/parts/leaders-[5-8]-*.json"))
    assert contents(by_rounds(tmp_path / "stopped", rows, params, 3)) == calm


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt
