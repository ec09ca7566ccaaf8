"""Time and memory of curation, on drawn features of images with planted copies.

    python benchmarks/curate.py [--rows 3000000] [--cpus 2] [--smoke]

A fortieth of the rows are equal originals of earlier rows, another fortieth near duplicates. One
hash is that of 20,000 rows: half of them look the same, half of them are all different. Prints the
seconds of the stage per million rows and the largest memory of a worker; the ratio is to reading
the columns once with pyarrow. Nothing is downloaded or decoded: the JPEGs are empty.
"""

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measuring import parse_options, timed
from numpy.typing import NDArray
from rich.console import Console

from dataprep.schemas import IMAGES
from orchestration import Context, Dataset, Output, Recipe, Slice, Stage, Workflow
from orchestration.params import StageParams
from orchestration.recipe import ClusterParams
from orchestration.reporting.usage import read_usage
from orchestration.slices import range_slices
from orchestration.storage.store import Store
from pipelines.curate import curate
from pipelines.curate.exchange import mixed, to_column

NUM_OF_ONE_HASH = 20_000
SLICE_ROWS = 100_000
COLUMNS = ["sha256", "phash", "colors", "gray", "captions", "original_width", "original_height"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--cpus", type=int, default=2)
    options = parse_options(parser, rows=4000)
    num_pairs = options.rows * 2 // 3
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        pairs = source("pairs", 0, num_pairs, options.rows)
        images = source("images", num_pairs, options.rows, options.rows)
        params = curate.Params()
        stage = curate.stage(
            params, evaluation_sets=[], pairs=[pairs], images=[images], held_out=[]
        )
        cluster = ClusterParams(num_cpus=options.cpus, object_store_mb=256)
        flow = Workflow(Recipe(name="bench", cluster=cluster), (pairs, images, stage))
        flow.run(Store(folder), Console(file=sys.stderr))
        measure(Store(folder), options.rows)


def measure(workdir: Store, num_rows: int) -> None:
    """Print the time and memory of the committed stage."""
    folders = {
        name: workdir.sub(f"{name}/{workdir.folders(name)[0]}")
        for name in ("import/pairs", "import/images", "curate")
    }
    usage, curated = read_usage(folders["curate"]), Dataset.open(folders["curate"], "rejects")
    reading = timed(partial(read, [folders["import/pairs"], folders["import/images"]]))
    manifest = curated.manifest
    sys.stdout.write(
        f"{num_rows} rows: {1e6 * usage.seconds / num_rows:.1f} s per million, "
        f"{usage.seconds / reading:.1f}x of reading the columns; peak memory of a worker "
        f"{usage.memory / 1e6:.0f} MB; {manifest.numbers['comparisons'] / num_rows:.2f} "
        f"comparisons per row; {dict(manifest.rejects)}\n"
    )


def read(folders: list[Store]) -> None:
    """Read the columns of all images, part by part."""
    for folder in folders:
        for part in Dataset.open(folder).parts:
            pq.read_table(folder.open(part.path), columns=COLUMNS)


def source(name: str, start: int, stop: int, num_rows: int) -> Stage:
    """Return a stage that draws the rows from ``start`` to ``stop``."""

    def run(context: Context) -> None:
        slices = range_slices(stop - start, SLICE_ROWS)
        context.map_slices(slices, partial(drawn, name, start, num_rows))
        context.commit(slices)

    return Stage(f"import/{name}", run, StageParams())


def drawn(name: str, first: int, num_rows: int, slice_: Slice) -> Output:
    """Return the images of a slice."""
    rows = np.arange(first + slice_.payload["start"], first + slice_.payload["stop"])
    kind = words(rows, 1)[:, 0] % np.uint64(40)
    earlier = (words(rows, 2)[:, 0] % np.maximum(rows, 1).astype(np.uint64)).astype(np.int64)
    is_equal, is_near = kind == 0, kind == 1
    of_one_hash = rows % max(num_rows // NUM_OF_ONE_HASH, 10) == 0
    look = np.where(is_equal | is_near, earlier, rows)
    look[of_one_hash & (rows % 2 == 0)] = num_rows
    phash = words(look, 3)[:, 0] ^ np.where(is_near, np.uint64(5), np.uint64(0))
    phash[of_one_hash] = 12345
    digests = words(np.where(is_equal, earlier, rows), 4, 4)
    captions = [[f"caption {row} of some plain words about image {row}"] for row in rows.tolist()]
    size = pa.array(np.full(len(rows), 256, np.int32))
    columns: dict[str, Any] = {
        "sample_id": [f"{name}/{row:09d}" for row in rows.tolist()],
        "source": pa.repeat(name, len(rows)),
        "jpeg": pa.repeat(b"", len(rows)),
        "original_width": size,
        "original_height": size,
        "sha256": hexadecimal(digests),
        "phash": hexadecimal(phash[:, None]),
        "colors": to_column(words(look, 5, 6).view(np.uint8)).cast(pa.binary()),
        "gray": to_column(words(look, 6, 32).view(np.uint8)).cast(pa.binary()),
        "captions": captions if name == "pairs" else [[]] * len(rows),
    }
    missing = {field.name: pa.nulls(len(rows), field.type) for field in IMAGES}
    return Output(len(rows), {"data": pa.table(missing | columns, schema=IMAGES)})


def words(rows: NDArray[np.int64], purpose: int, number: int = 1) -> NDArray[np.uint64]:
    """Return random numbers that depend on the row and purpose alone: (N, number)."""
    keys = rows.astype(np.uint64)[:, None] * np.uint64(64) + np.arange(number, dtype=np.uint64)
    return mixed(mixed(keys) + np.uint64(purpose))


def hexadecimal(numbers: NDArray[np.uint64]) -> list[str]:
    """Return each row of numbers as one string."""
    return [row.tobytes().hex() for row in numbers]


if __name__ == "__main__":
    main()
