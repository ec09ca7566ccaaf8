"""Time and memory of curation, on drawn features of images with planted copies.

    python benchmarks/curate.py [--rows 3000000] [--cpus 2] [--smoke]

``drawn_looks.py`` says which copies are planted. Prints the seconds of the stage per million rows
and the largest memory of a worker; the ratio is to reading the columns once with pyarrow. Nothing
is downloaded or decoded: the JPEGs are empty.
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
from drawn_looks import looks
from measuring import parse_options, timed
from rich.console import Console

from dataprep.schemas import IMAGES
from orchestration import Context, Dataset, Output, Recipe, Slice, Stage, Workflow
from orchestration.params import StageParams
from orchestration.recipe import ClusterParams
from orchestration.reporting.usage import read_usage
from orchestration.slices import range_slices
from orchestration.storage.store import Store
from pipelines.curate import curate

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
    captions = [[f"caption {row} of some plain words about image {row}"] for row in rows.tolist()]
    size = pa.array(np.full(len(rows), 256, np.int32))
    columns: dict[str, Any] = {
        "sample_id": [f"{name}/{row:09d}" for row in rows.tolist()],
        "source": pa.repeat(name, len(rows)),
        "jpeg": pa.repeat(b"", len(rows)),
        "original_width": size,
        "original_height": size,
        **looks(rows, num_rows),
        "captions": captions if name == "pairs" else [[]] * len(rows),
    }
    missing = {field.name: pa.nulls(len(rows), field.type) for field in IMAGES}
    return Output(len(rows), {"data": pa.table(missing | columns, schema=IMAGES)})


if __name__ == "__main__":
    main()
