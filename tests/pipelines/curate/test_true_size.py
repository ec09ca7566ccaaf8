"""Curation of 3 million drawn images: the same bytes for 1, 2 and 8 partitions, and the same
verdicts as brute force for a sample of the images and all images that are related to them.
"""

import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import ray.cloudpickle
from rich.console import Console

from orchestration import Dataset, Recipe, Workflow
from orchestration.recipe import ClusterParams
from orchestration.storage.store import Store
from pipelines.curate import leaders
from pipelines.curate.curate import Params, stage
from tests.pipelines.curate.brute_force import Row, curate

NUM_ROWS = 3_000_000
NUM_SAMPLED = 3000
CHUNK = 100_000
PARTITIONS = (1, 2, 8)


@pytest.fixture
def drawing(monkeypatch):
    """The benchmark's module that draws the images."""
    monkeypatch.syspath_prepend(Path("benchmarks"))
    import curate as benchmark

    for name in ("curate", "drawn_looks", "measuring"):  # workers of Ray cannot import them
        ray.cloudpickle.register_pickle_by_value(sys.modules[name])
    yield benchmark
    for name in ("curate", "drawn_looks", "measuring"):
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[name])
        sys.modules.pop(name)


@pytest.mark.exhaustive
@pytest.mark.slow
def test_three_million_images_are_curated_as_by_brute_force(tmp_path, drawing):
    num_pairs = NUM_ROWS * 2 // 3
    outputs = []
    for number in PARTITIONS:
        shutil.rmtree(tmp_path / "curate", ignore_errors=True)
        sources = (
            drawing.source("pairs", 0, num_pairs, NUM_ROWS),
            drawing.source("images", num_pairs, NUM_ROWS, NUM_ROWS),
        )
        params = Params(partition_rows=-(-NUM_ROWS // number))
        curation = stage(
            params, evaluation_sets=[], pairs=sources[:1], images=sources[1:], held_out=[]
        )
        cluster = ClusterParams(num_cpus=2, object_store_mb=256)
        flow = Workflow(Recipe(name="curated", cluster=cluster), (*sources, curation))
        flow.run(Store(tmp_path), Console(file=sys.stderr))
        (name,) = Store(tmp_path).folders("curate")
        outputs.append(Dataset.open(Store(tmp_path).sub(f"curate/{name}")))
    first, *others = (output.manifest for output in outputs)
    for other in others:
        assert other.parts == first.parts
        assert other.numbers == first.numbers and other.counters == first.counters
    assert first.numbers["images_of_crowded_hashes"] > 9000

    sampled = np.random.default_rng(0).choice(NUM_ROWS, NUM_SAMPLED, replace=False)
    numbers = related(sampled, drawing.looks)
    rows = drawn(numbers, num_pairs, drawing)
    assert len(rows) > NUM_SAMPLED + 19_000  # the images of the shared hash are among them
    curate(rows, params, leaders.MAX_LEADERS)
    compare(outputs[-1], rows)


def related(sampled: np.ndarray, looks) -> np.ndarray:
    """The sampled rows, those of the shared hash, and all rows that are connected with them.

    Rows are connected by one original or by hashes that differ in at most 6 bits.
    """
    digests, hashes = np.empty(NUM_ROWS, np.uint64), np.empty(NUM_ROWS, np.uint64)
    for start in range(0, NUM_ROWS, CHUNK):
        found = looks(np.arange(start, start + CHUNK), NUM_ROWS)
        some = slice(start, start + CHUNK)
        digests[some] = [int(text[:16], 16) for text in found["sha256"]]
        hashes[some] = [int(text, 16) for text in found["phash"]]
    hashes_of_rows = np.unique(hashes, return_counts=True)
    shared = hashes_of_rows[0][hashes_of_rows[1].argmax()]
    is_in = hashes == shared
    is_in[sampled] = True
    seen: set[int] = set()
    while True:
        before = int(is_in.sum())
        is_in |= np.isin(digests, digests[is_in])
        new = set(np.unique(hashes[is_in]).tolist()) - seen
        for one in new:
            is_in |= np.bitwise_count(hashes ^ np.uint64(one)) <= Params().max_hash_distance
        seen |= new
        if int(is_in.sum()) == before:
            return np.flatnonzero(is_in)


def drawn(numbers: np.ndarray, num_pairs: int, drawing) -> list[Row]:
    """The rows of some numbers, as brute force takes them."""
    found = drawing.looks(numbers, NUM_ROWS)
    colors, grays = (found[name].to_pylist() for name in ("colors", "gray"))
    rows = []
    for i, number in enumerate(numbers.tolist()):
        role = "pairs" if number < num_pairs else "images"
        caption = f"caption {number} of some plain words about image {number}"
        rows.append(
            Row(
                name=f"{role}/{number:09d}",
                role=role,
                sha256=found["sha256"][i],
                phash=int(found["phash"][i], 16),
                colors=np.frombuffer(colors[i], np.uint8),
                gray=np.frombuffer(grays[i], np.uint8),
                size=(256, 256),
                captions=[caption] if role == "pairs" else [],
            )
        )
    return rows


def compare(output: Dataset, rows: list[Row]) -> None:
    """Each row stands in the table where brute force puts it."""
    names = pa.array([row.name for row in rows])
    read = partial(only, output, names)
    for role in ("pairs", "images"):
        expected = {row.name: row.merged for row in rows if row.role == role and not row.reason}
        found = read(role, ["sample_id", "captions"])
        assert dict(zip(found["sample_id"], found["captions"], strict=True)) == expected
    found = read("rejects", ["sample_id", "reason"])
    reasons = dict(zip(found["sample_id"], found["reason"], strict=True))
    assert reasons == {row.name: row.reason for row in rows if row.reason}
    assert {"duplicate", "near_duplicate", "placeholder"} == set(reasons.values())


def only(output: Dataset, names: pa.Array, table: str, columns: list[str]) -> dict[str, list]:
    """Columns of the rows of a table that have one of the names."""
    rows = output.table(table).read(columns=columns)
    return rows.filter(pc.is_in(rows["sample_id"], names)).to_pydict()
