"""Codes of another tokenizer in token tables: nothing else changes, and faulty images are rejects.

How rows are found in the files is tested in ``tests/dataprep/test_code_files.py``.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from dataprep.images import encode_jpeg
from dataprep.schemas import rejects_table
from dataprep.sources.code_files import GROUPS_HELD
from orchestration import Dataset, Output, Stage
from orchestration.errors import StageError
from orchestration.params import StageParams
from orchestration.reporting.usage import Expected
from orchestration.storage.store import Store
from pipelines.tokens import given_codes, image_tokens, pair_tokens
from tests.committing import commit_outputs, commit_tables
from tests.in_process import run_in_process
from tests.pipelines.tokens.test_image_tokens import TOKENIZER
from tokenizer.text import train
from tokenizer.vqkd import VQKD

NUM_IMAGES, NUM_VIEWS, N = 21, 3, TOKENIZER.grid**2
PAGE = (Path(__file__).parents[3] / "docs" / "studies.md").read_text()
CUTTING = {"num_views": NUM_VIEWS, "held_out_fraction": 0.3, "slice_rows": 8, "row_group_rows": 3}


def dummy(name: str) -> Stage:
    return Stage(name, lambda context: None, StageParams())


def token_stages() -> dict[str, Stage]:
    inputs = {"seed": 4, "flip": True, "curated": dummy("curate"), "images": [dummy("import/a")],
              "held_out": [], "tokenizer": dummy("image_tokenizer")}  # fmt: skip
    text = dummy("text_tokenizer")
    return {
        "images": image_tokens.stage(image_tokens.Params(**CUTTING), **inputs),
        "pairs": pair_tokens.stage(
            pair_tokens.Params(**CUTTING), text_tokenizer=text, **inputs
        ),
    }  # fmt: skip


@pytest.fixture(scope="module")
def tokens(tmp_path_factory) -> dict[str, Store]:
    """Outputs of ``image_tokens`` and ``pair_tokens``."""
    store = Store(tmp_path_factory.mktemp("tokens"))
    rng = np.random.default_rng(0)
    images = [
        encode_jpeg(rng.integers(0, 255, (*rng.integers(30, 70, 2), 3), dtype=np.uint8), 90)
        for _ in range(NUM_IMAGES)
    ]
    table = pa.table({
        "sample_id": [f"a/{i}" for i in range(NUM_IMAGES)],
        "source": ["a"] * NUM_IMAGES,
        "label": [""] * NUM_IMAGES,
        "jpeg": images,
        "captions": [[f"a {i}", f"c {i}"] for i in range(NUM_IMAGES)],
        "sha256": [str(i) for i in range(NUM_IMAGES)],
        "held_out": pa.nulls(NUM_IMAGES, pa.bool_()),
        "group": pa.nulls(NUM_IMAGES, pa.string()),
    })  # fmt: skip
    commit_tables(store.sub("a"), [table], row_group_rows=5)
    kept = pa.table({
        "sample_id": table["sample_id"], "dataset": [0] * NUM_IMAGES, "row": range(NUM_IMAGES),
        "captions": table["captions"],
    })  # fmt: skip
    commit_outputs(store.sub("curate"), [Output(NUM_IMAGES, {"pairs": kept, "images": kept})])
    torch.manual_seed(0)
    path = Path(store.native_path("model"))
    VQKD(TOKENIZER).save(path)
    models = {
        "vqkd.pt": path.read_bytes(),
        "spm.model": train(["a b c d e"] * 9, vocab_size=9, character_coverage=1),
    }
    commit_tables(store.sub("models"), [], row_group_rows=1, files=models)
    folders = {"curate": "curate", "import/a": "a", "image_tokenizer": "models",
               "text_tokenizer": "models"}  # fmt: skip
    for kind, stage in token_stages().items():
        inputs = {name: store.sub(folders[name]) for name in stage.input_names}
        run_in_process(stage, store.sub(kind), inputs)
    return {kind: store.sub(kind) for kind in ("images", "pairs")}


def rows_of(folder: Store) -> Iterator[dict]:
    for name in given_codes.TABLES:
        table = Dataset.open(folder, name).read(columns=["sample_id", "codes"])
        for row in table.to_pylist():
            for view, codes in enumerate(np.reshape(row["codes"], (NUM_VIEWS, N)).tolist()):
                yield {"sample_id": row["sample_id"], "view": view, "codes": codes}


def write(path: Path, rows: list[dict]) -> Path:
    schema = pa.schema(
        [("sample_id", pa.string()), ("view", pa.int32()), ("codes", pa.list_(pa.int32()))]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=7)
    return path


def given(kind: str, file: Path, num_codes: int = TOKENIZER.num_codes) -> Stage:
    params = given_codes.Params(file=str(file), num_codes=num_codes)
    return given_codes.stage(params, tokens=token_stages()[kind])


def run(kind: str, file: Path, tokens: dict[str, Store], folder: Path, **options) -> Dataset:
    stage = given(kind, file, **options)
    (name,) = stage.input_names
    run_in_process(stage, Store(folder), {name: tokens[kind]})
    return Dataset.open(Store(folder))


@pytest.mark.parametrize("kind", ["images", "pairs"])
def test_the_codes_of_vqkd_give_the_same_bytes(tokens, tmp_path, kind):
    rows = list(rows_of(tokens[kind]))
    np.random.default_rng(0).shuffle(rows)
    found = run(kind, write(tmp_path / "c.parquet", rows), tokens, tmp_path / "out").manifest
    expected = Dataset.open(tokens[kind]).manifest
    assert found.num_rows("train") and found.num_rows("held_out") and found.num_rows_in == 21
    for mine, theirs in zip(found.parts, expected.parts, strict=True):
        assert mine.slice == theirs.slice
        for name in given_codes.TABLES:
            assert mine.tables[name] == theirs.tables[name]  # path, bytes, sha256, row groups
    assert found.files == expected.files and found.numbers == expected.numbers
    assert found.columns.items() >= expected.columns.items()
    assert not (tmp_path / "out" / "index").exists()


@pytest.mark.parametrize("kind", ["images", "pairs"])
def test_other_codes_replace_those_of_vqkd_and_nothing_else(tokens, tmp_path, kind):
    rng = np.random.default_rng(1)
    rows = [
        {**row, "codes": rng.integers(0, 60_000, N).tolist()} for row in rows_of(tokens[kind])
    ]  # fmt: skip
    (tmp_path / "codes").mkdir()
    for i in range(3):  # a folder of files
        write(tmp_path / "codes" / f"{i}.parquet", rows[i::3])
    found = run(kind, tmp_path / "codes", tokens, tmp_path / "out", num_codes=60_000)
    expected = {(row["sample_id"], row["view"]): row["codes"] for row in rows}
    for name in given_codes.TABLES:
        mine, theirs = (
            Dataset.open(folder, name).read() for folder in (found.folder, tokens[kind])
        )
        assert mine.schema == theirs.schema
        assert mine.drop_columns("codes").equals(theirs.drop_columns("codes"))
        for sample_id, codes in zip(*(mine[n].to_pylist() for n in ("sample_id", "codes"))):  # noqa: B905
            for view in range(NUM_VIEWS):
                assert codes[view * N : (view + 1) * N] == expected[sample_id, view]


def test_faulty_images_are_rejects_and_are_not_counted_as_pairs(tokens, tmp_path):
    rows = list(rows_of(tokens["pairs"]))
    trained = Dataset.open(tokens["pairs"], "train").read()["sample_id"].to_pylist()
    missing, short, large = trained[:3]
    held_out = Dataset.open(tokens["pairs"], "held_out").read()["sample_id"].to_pylist()
    rows = [row for row in rows if (row["sample_id"], row["view"]) != (missing, 1)]
    for row in rows:
        if row["sample_id"] == short:
            row["codes"] = row["codes"][1:]
        if row["sample_id"] in (large, held_out[0]) and row["view"] == 2:
            row["codes"][5] = TOKENIZER.num_codes
    found = run("pairs", write(tmp_path / "c.parquet", rows), tokens, tmp_path / "out")
    rejects = found.table("rejects").read()
    assert rejects.schema.names == rejects_table([]).schema.names
    assert {row["sample_id"]: (row["source"], row["reason"]) for row in rejects.to_pylist()} == {
        missing: ("a", "no_codes"),
        short: ("a", "wrong_shape"),
        large: ("a", "code_out_of_range"),
        held_out[0]: ("a", "code_out_of_range"),
    }
    assert found.manifest.rejects == {"no_codes": 1, "wrong_shape": 1, "code_out_of_range": 2}
    assert found.manifest.num_rows_in == NUM_IMAGES
    assert found.table("train").read()["sample_id"].to_pylist() == trained[3:]
    assert found.table("held_out").read()["sample_id"].to_pylist() == held_out[1:]
    counts = pq.read_table(found.fetch(pair_tokens.COUNTS_FILE))
    captions = found.table("train").read()["num_captions"]
    assert counts["num_captions"].to_pylist() == captions.to_pylist()
    assert found.manifest.numbers["images/a"] == len(trained) - 3
    assert found.manifest.numbers["num_pairs"] == sum(captions.to_pylist())


def test_a_killed_run_goes_on_with_its_index_wherever_the_file_lies_then(
    tokens, tmp_path, monkeypatch
):
    rows = list(rows_of(tokens["pairs"]))
    expected = run("pairs", write(tmp_path / "c.parquet", rows), tokens, tmp_path / "whole")
    process, done = given_codes.CodeWriter.__call__, []

    def killed(self, slice_):
        if done:
            raise KeyboardInterrupt
        done.append(slice_.id)
        return process(self, slice_)

    with monkeypatch.context() as patch:
        patch.setattr(given_codes.CodeWriter, "__call__", killed)
        with pytest.raises(KeyboardInterrupt):
            run("pairs", tmp_path / "c.parquet", tokens, tmp_path / "out")
    moved = (tmp_path / "c.parquet").rename(tmp_path / "moved.parquet")
    monkeypatch.setattr(given_codes, "write_index", None)  # is not called again
    found = run("pairs", moved, tokens, tmp_path / "out")
    assert len(done) == 1 and found.manifest.parts == expected.manifest.parts


def test_codes_of_other_images_are_an_error(tokens, tmp_path):
    rows = [{**row, "sample_id": f"b{row['sample_id']}"} for row in rows_of(tokens["images"])]
    file = write(tmp_path / "c.parquet", rows)
    with pytest.raises(
        StageError, match=r"no image of image_tokens has usable codes; the first, a"
    ):
        run("images", file, tokens, tmp_path / "out")


def test_a_plan_says_what_is_wrong_with_the_files(tmp_path):
    file = tmp_path / "c.parquet"
    pq.write_table(pa.table({"sample_id": ["a"], "view": [0]}), file)
    assert given("images", file).requires() == (
        f"given_codes.file: {file}: no column codes; it has sample_id, view; correct the name in "
        "the file or in the recipe"
    )
    pq.write_table(pa.table({"sample_id": ["a"], "view": [0], "codes": [["x"]]}), file)
    assert "codes is of type list<" in str(given("images", file).requires())
    assert "no such file" in str(given("pairs", tmp_path / "none").requires())
    assert given("pairs", write(file, [])).requires() is None


def test_a_plan_counts_the_row_groups_of_the_files_as_they_were_written(tmp_path):
    rows = [{"sample_id": f"a/{i}", "view": 0, "codes": [1] * N} for i in range(7)]
    empty, full = write(tmp_path / "0.parquet", []), write(tmp_path / "1.parquet", rows)
    inputs = {"image_tokens": Expected()}
    memory = [given("images", file).workers(inputs).memory for file in (empty, full)]
    assert memory[1] - memory[0] == GROUPS_HELD * 7 * N * 4
    full.write_bytes(b"damaged")
    assert given("images", full).workers(inputs).memory == memory[0]


def test_a_reader_of_token_tables_gets_the_parameters_of_the_input(tmp_path):
    stage = given("pairs", write(tmp_path / "c.parquet", []))
    assert stage.name == "given_codes/pairs" and stage.input_names == ("pair_tokens",)
    assert isinstance(stage.params, image_tokens.CropParams)
    assert stage.params.num_views == NUM_VIEWS and stage.params.flip
    assert stage.params.row_group_rows == 3 and stage.params.gpus_per_actor == 0


def test_the_program_of_the_page_gives_codes_of_every_view(tokens, tmp_path):
    (program,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    (tmp_path / "give_codes.py").write_text(program)
    # A tokenizer of 16 patches: the mean gray of each.
    (tmp_path / "my_tokenizer.py").write_text(
        "import numpy as np\n"
        "def codes_of(crop):\n"
        "    assert crop.size == (112, 112) and crop.mode == 'RGB'\n"
        "    gray = np.asarray(crop.convert('L'), float)\n"
        "    return gray.reshape(4, 28, 4, 28).mean((1, 3)).round().astype(int).ravel().tolist()\n"
    )
    folders = [str(folder.native_path()) for folder in tokens.values()]
    arguments = [sys.executable, "give_codes.py", "codes.parquet", *folders[:1]]
    subprocess.run(arguments, cwd=tmp_path, check=True, env={**os.environ, "PYTHONPATH": ""})
    file = tmp_path / "codes.parquet"
    assert pq.read_metadata(file).num_rows == NUM_IMAGES * NUM_VIEWS
    found = run("images", file, tokens, tmp_path / "out", num_codes=256)
    assert found.manifest.num_rows("rejects") == 0
    # The crop that training cuts of the same row has these means.
    from dataprep.images import decode_stored
    from dataprep.views import View, cut

    for row in found.table("train").read().to_pylist():
        pixels = decode_stored(row["jpeg"], row["sample_id"])
        codes = np.reshape(row["codes"], (NUM_VIEWS, 4, 4))
        for view, numbers in enumerate(np.reshape(row["views"], (NUM_VIEWS, 5)).tolist()):
            crop = cut(pixels, View(*numbers[:4], bool(numbers[4])), 112)
            gray = crop @ np.array([0.299, 0.587, 0.114])
            means = gray.reshape(4, 28, 4, 28).mean((1, 3))
            assert np.abs(means - codes[view]).max() < 6
            assert np.corrcoef(means.ravel(), codes[view].ravel())[0, 1] > 0.9
    assert json.loads((Path(folders[0]) / "manifest.json").read_text())["parts"]
