"""A row that ends its worker in a real stage: one reject, all other rows, few attempts.

The engine's part is tested in ``tests/orchestration/test_suspects.py``.
"""

import ctypes
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from rich.console import Console

from dataprep.images import encode_jpeg
from dataprep.schemas import INDEX
from orchestration import Context, Dataset, Output, Recipe, Slice, Stage, Workflow
from orchestration.params import StageParams
from orchestration.recipe import ClusterParams, SliceParams
from orchestration.storage.store import Store
from orchestration.suspects import KILLED_WORKER
from pipelines.ingest import download
from pipelines.tokens import image_tokens
from tokenizer.vqkd import VQKD, VQKDConfig

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

NUM_ROWS = 24
NO_JPEG, DEADLY_TO_FETCH, DEADLY_TO_ENCODE = 3, 13, 18
SLICE_ROWS = 8
MAX_ATTEMPTS = 2


def end_worker(traces: Path, kill: Callable[[], object]) -> None:
    with traces.open("a") as file:
        file.write(f"{os.getpid()}\n")
    kill()


def leave() -> None:
    os._exit(9)


def read_address_zero() -> None:
    ctypes.string_at(0)


class DeadlyFetcher(download.SliceFetcher):
    """Ends its process at one row."""

    def fetch(self, rows: pa.Table) -> Output:
        if f"own/{DEADLY_TO_FETCH}" in rows["sample_id"].to_pylist():
            end_worker(Path(self.params.images_folder, "fetches"), leave)
        return super().fetch(rows)


class DeadlyTokenizer(image_tokens.ViewTokenizer):
    """Crashes in one of its threads at one image."""

    def __init__(self, params, split, whole, tokenizer, kept, images) -> None:
        super().__init__(params, split, whole, tokenizer, kept, images)
        self.traces = Path(tokenizer.folder.native_path()).parents[2]

    def _cut(self, sample_id: str, jpeg: bytes):
        if sample_id == f"own/{DEADLY_TO_ENCODE}":
            end_worker(self.traces / "encodes", read_address_zero)
        return super()._cut(sample_id, jpeg)


def index_stage() -> Stage:
    rows = [
        {"sample_id": f"own/{i}", "source": "own", "url": f"file:{i}.jpg", "captions": ["x"]}
        for i in range(NUM_ROWS)
    ]
    table = pa.Table.from_pylist(rows, INDEX)
    return table_stage("index/own", {"data": table})


def table_stage(name: str, tables: dict[str, pa.Table], **inputs: tuple[str, ...]) -> Stage:
    def run(context: Context) -> None:
        slices = [Slice("0", {})]
        context.map_slices(slices, lambda slice_: Output(1, tables))
        context.commit(slices)

    return Stage(name, run, StageParams(), inputs)


def tokenizer_stage() -> Stage:
    config = VQKDConfig(
        image_size=32, patch_size=8, width=64, depth=1, num_heads=1, decoder_depth=1, num_codes=16,
        code_dim=4, teacher_dim=8,
    )  # fmt: skip

    def run(context: Context) -> None:
        torch.manual_seed(0)
        VQKD(config).save(Path(context.folder.native_path("vqkd.pt")))
        context.commit(files=["vqkd.pt"])

    return Stage("image_tokenizer", run, StageParams())


def test_a_row_that_ends_its_worker_is_one_reject_of_download_and_of_image_tokens(
    tmp_path, monkeypatch
):
    rng = np.random.default_rng(0)
    for i in range(NUM_ROWS):
        pixels = rng.integers(0, 255, (60, 70, 3), dtype=np.uint8)
        (tmp_path / f"{i}.jpg").write_bytes(encode_jpeg(pixels, 90))
    (tmp_path / f"{NO_JPEG}.jpg").write_bytes(b"no image")
    # Captured records refer to Ray's actors, which then outlive their stage and hold its CPUs.
    monkeypatch.setattr("_pytest.logging.LogCaptureHandler.emit", lambda handler, record: None)
    monkeypatch.setattr(download, "SliceFetcher", DeadlyFetcher)
    monkeypatch.setattr(image_tokens, "ViewTokenizer", DeadlyTokenizer)

    index, tokenizer = index_stage(), tokenizer_stage()
    images = download.stage(
        download.Params(
            contact="tests",
            slice_rows=SLICE_ROWS,
            images_folder=str(tmp_path),
            store={"short_side": 32},
        ),
        name="own",
        index=index,
    )
    fetched = [i for i in range(NUM_ROWS) if i not in (NO_JPEG, DEADLY_TO_FETCH)]
    number = len(fetched)
    captions = pa.array([["x"]] * number, pa.list_(pa.large_string()))
    locations = pa.table({"dataset": [0] * number, "row": range(number), "captions": captions})
    curated = table_stage("curate", {"images": locations}, images=(images.name,))
    tokens = image_tokens.stage(
        image_tokens.Params(slice_rows=SLICE_ROWS, held_out_fraction=0),
        seed=5,
        flip=True,
        curated=curated,
        images=[images],
        held_out=[],
        tokenizer=tokenizer,
    )
    recipe = Recipe(
        name="toy",
        cluster=ClusterParams(num_cpus=2, object_store_mb=128),
        slices=SliceParams(max_attempts=MAX_ATTEMPTS, pause_s=0.1),
    )
    store, console = Store(tmp_path / "work"), Console(file=io.StringIO(), soft_wrap=True)
    plan = Workflow(recipe, (index, images, curated, tokenizer, tokens)).run(store, console)

    folders = {planned.stage.name: store.sub(planned.path) for planned in plan}
    for name, table, deadly, others, traces in (
        ("download/own", "data", DEADLY_TO_FETCH, {f"own/{NO_JPEG}"}, "fetches"),
        ("image_tokens", "train", DEADLY_TO_ENCODE, set(), "encodes"),
    ):
        data = Dataset.open(folders[name], table)
        rejects = data.table("rejects").read().to_pylist()
        (mine,) = [row for row in rejects if row["reason"] == KILLED_WORKER]
        assert mine["sample_id"] == f"own/{deadly}" and "ended without" in mine["detail"]
        assert {row["sample_id"] for row in rejects} == others | {mine["sample_id"]}
        expected = [i for i in fetched if not (name == "image_tokens" and i == deadly)]
        assert data.read()["sample_id"].to_pylist() == [f"own/{i}" for i in expected]
        ends = (tmp_path / traces).read_text().split()
        halvings = SLICE_ROWS.bit_length() - 1
        assert len(ends) == len(set(ends))
        assert MAX_ATTEMPTS + 2 <= len(ends) <= MAX_ATTEMPTS + 1 + halvings
    said = console.file.getvalue()  # type: ignore[attr-defined]
    row = fetched.index(DEADLY_TO_ENCODE)
    words = "the worker of these rows ended, they are rejects"
    assert f"download/own: slice 000001: {words}: {DEADLY_TO_FETCH}\n" in said
    assert f"image_tokens: slice 00000{row // SLICE_ROWS}: {words}: {row}\n" in said
