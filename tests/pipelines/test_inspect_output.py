"""``beit3 inspect`` on committed outputs: words, crops, checkpoints, rejects, damage, and on S3.

The networks and the workdir are small and committed without Ray.
"""

import base64
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save
from typer.testing import CliRunner

from dataprep.images import encode_jpeg
from dataprep.schemas import reject, rejects_table
from dataprep.views import View, cut
from model import BEiT3
from orchestration import Output
from orchestration.checkpoint_files import write_list
from orchestration.fingerprint import fingerprint_of
from orchestration.manifest import MANIFEST, read_manifest
from orchestration.storage.files import StorageParams
from orchestration.storage.store import Store
from pipelines.cli import app
from pipelines.report.outputs.decoded import documents, worded
from pipelines.report.outputs.norms import part_norms
from pipelines.report.outputs.output_sheet import images_of
from pipelines.tokens.text_tokenizer import MODEL_FILE
from tests.committing import commit_outputs, commit_tables
from tests.pipelines.pretrain.test_feed import NETWORK
from tests.s3 import BUCKET
from tokenizer.text import BOS, TextTokenizer, train

HOSTILE = "<script>alert(1)</script>[red]"
FP = "0123456789abcdef"
STAGES = (
    "index/own", "text_tokenizer", "text_tokens", "pair_tokens", "given_codes/pairs", "pretrain",
)  # fmt: skip
VIEW = (3, 4, 20, 16, 1)


@pytest.fixture(scope="module")
def spm(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "spm.model"
    lines = ["a red circle, a blue square.", "the blue circle; one red square!"] * 30
    path.write_bytes(train(lines, vocab_size=26, character_coverage=1.0))
    return path


@pytest.fixture(scope="module")
def text(spm) -> TextTokenizer:
    return TextTokenizer.load(spm)


def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def make(store: Store, folder: Path, spm: Path) -> Store:
    """Commit the outputs of STAGES in a workdir."""
    text = TextTokenizer.load(spm)
    stages = dict.fromkeys(STAGES, FP)
    workflow = store.sub(f"workflows/{fingerprint_of(stages)}")
    source = folder / "own.tsv"
    source.write_text("".join(f"caption {i}\thttp://a.example/{i}\n" for i in range(9)))
    record = {"name": "own", "stages": stages, "started_at": source.stat().st_mtime + 1}
    workflow.write_bytes("record.json", json.dumps(record).encode())
    recipe = {"sources": {"own": {"format": "tsv", "list": str(source)}}}
    workflow.write_bytes("recipe.yaml", json.dumps(recipe).encode())
    index = [reject("own/000000007", "own", "bad_url", HOSTILE)]
    rows = pa.table({"sample_id": [f"own/{i:09d}" for i in range(6)], "caption": [HOSTILE] * 6})
    commit(store, "index/own", {"data": rows, "rejects": rejects_table(index)})
    commit(store, "text_tokenizer", {}, files={MODEL_FILE: spm.read_bytes()})
    ids = [[BOS, *text.encode("a red circle"), BOS, *text.encode("one blue square")]] * 4
    width = len(ids[0])
    flat = pa.array(np.array(ids, np.uint16).ravel())
    commit(
        store,
        "text_tokens",
        {"train": pa.table({"ids": pa.FixedSizeListArray.from_arrays(flat, width)})},
        parents=["text_tokenizer"],
    )
    jpeg = encode_jpeg(pixels(), 95)
    captions = pa.array([[text.encode("a blue square")]] * 3, pa.list_(pa.list_(pa.uint16())))
    pairs = pa.table(
        {
            "sample_id": [f"own/{i}" for i in range(3)],
            "jpeg": [jpeg] * 3,
            "views": pa.FixedSizeListArray.from_arrays(pa.array([*VIEW] * 3, pa.uint16()), 5),
            "codes": pa.FixedSizeListArray.from_arrays(pa.array([0, 1, 2, 1] * 3, pa.uint16()), 4),
            "captions": captions,
        }
    )
    commit(store, "pair_tokens", {"held_out": pairs}, parents=["text_tokenizer"])
    commit(store, "given_codes/pairs", {"held_out": pairs}, parents=["pair_tokens"])
    return store


def commit(store: Store, stage: str, tables, *, files=None, parents=()) -> None:
    folder = store.sub(f"{stage}/{FP}")
    outputs = [Output(9, tables)] if tables else []
    commit_outputs(folder, outputs, files=files or {}, numbers={"mean": 1.5})
    found = json.loads(folder.read(MANIFEST))
    found["stage"], found["fingerprint"] = stage, FP
    found["parents"] = {
        "role": [{"stage": p, "fingerprint": FP, "manifest_sha256": ""} for p in parents]
    }
    folder.write_bytes(MANIFEST, json.dumps(found).encode())


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, spm) -> Store:
    folder = tmp_path_factory.mktemp("inspected")
    return make(Store(folder / "work"), folder, spm)


def inspect(*words: str) -> str:
    done = CliRunner().invoke(app, ["inspect", *words], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.exception
    return done.output


def test_a_workdir_lists_its_outputs(workdir):
    shown = inspect(workdir.uri)
    assert all(f"{workdir.uri}/{stage}/{FP}" in shown for stage in STAGES)
    assert "missing" in shown  # pretrain never ran


@pytest.mark.parametrize("where", ["index/own", f"index/own/{FP}"])
def test_an_output_shows_schema_counts_and_rows_as_they_are(workdir, where):
    shown = inspect("output", f"{workdir.uri}/{where}/", "--rows", "2")
    for words in ("stage index/own", "sample_id: string", "rejects/bad_url 1", "mean 1.5",
                  "data, row 0", "data, row 5", f"caption: {HOSTILE}"):  # fmt: skip
        assert words in shown, words


def test_token_ids_are_shown_as_words_and_views_as_boxes(workdir):
    shown = inspect(f"{workdir.uri}/text_tokens")
    assert "tokens: a red circle | one blue square" in shown
    for stage in ("pair_tokens", "given_codes/pairs"):
        shown = inspect(f"{workdir.uri}/{stage}", "--rows", "1")
        assert "captions: a blue square" in shown
        assert "views: 20 x 16 at (3, 4), mirrored" in shown
        assert "codes: 1 views of 4 codes, 3 different ones" in shown
        assert "jpeg: JPEG 60 x 40" in shown


def test_one_parquet_file_is_shown_with_the_row_numbers_of_its_table(workdir):
    folder = workdir.sub(f"pair_tokens/{FP}")
    (part,) = read_manifest(folder).parts
    path = folder.uri_of(part.tables["held_out"].path)
    shown = inspect(path, "--rows", "9")
    assert "held_out, row 2" in shown and "row 3" not in shown and "stage " not in shown
    done = CliRunner().invoke(app, ["inspect", f"{path.rpartition('/')[0]}/other.parquet"])
    assert "names no such file" in str(done.exception)


def test_the_sheet_holds_crops_of_the_views_and_escapes_text(workdir, tmp_path):
    sheet = tmp_path / "pairs.html"
    inspect(f"{workdir.uri}/pair_tokens", "--sheet", str(sheet))
    html = sheet.read_text()
    assert html.count("data:image/jpeg") == 9  # the image, its view, its codes, of 3 rows
    inspect(f"{workdir.uri}/index/own", "--table", "data", "--sheet", str(sheet))
    assert "&lt;script&gt;" in sheet.read_text() and "<script" not in sheet.read_text()


def test_the_crop_of_a_view_is_that_of_the_training():
    row = {"jpeg": encode_jpeg(pixels(), 95), "views": list(VIEW), "codes": [0, 1, 2, 1]}
    titles = [title for title, _ in images_of(row)]
    assert titles == ["jpeg", "view 0", "its 4 codes"]
    uri = dict(images_of(row))["view 0"]
    data = np.frombuffer(base64.b64decode(uri.partition(",")[2]), np.uint8)
    found = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    stored = cv2.cvtColor(
        cv2.imdecode(np.frombuffer(row["jpeg"], np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
    )
    expected = cut(stored, View(3, 4, 20, 16, True), 112)
    assert np.abs(found.astype(int) - expected).mean() < 12  # it was encoded as a JPEG again


def test_a_rejected_row_has_its_reason_and_its_line(workdir):
    shown = inspect(f"{workdir.uri}/index/own", "--reject", "own/000000007")
    assert "own/000000007: bad_url, by index/own" in shown
    assert f"detail: {HOSTILE}" in shown and "own.tsv:7" in shown
    assert "line: caption 6 http://a.example/6" in " ".join(shown.split())
    done = CliRunner().invoke(app, ["inspect", f"{workdir.uri}/index/own", "--reject", "own/8"])
    assert "rejected no sample 'own/8'" in str(done.exception)


def test_no_line_is_shown_of_a_list_that_was_written_since(tmp_path, spm):
    store = make(Store(tmp_path / "work"), tmp_path, spm)
    later = (tmp_path / "own.tsv").stat().st_mtime + 9
    os.utime(tmp_path / "own.tsv", (later, later))
    shown = inspect(f"{store.uri}/index/own", "--reject", "own/000000007")
    assert "own.tsv:7" in shown and "caption 6" not in shown
    assert f"line: not known: {tmp_path}/own.tsv was written after the run" in shown


def checkpoint_of(folder: Path, network: BEiT3) -> Store:
    path = folder / "step_00000040"
    path.mkdir(parents=True)
    dcp.save({"network": network.state_dict(), "step": 40}, checkpoint_id=path, no_dist=True)
    (path / "network.json").write_text(json.dumps(network.config.to_dict()))
    write_list(path, 0, 1)
    return Store(path)


def test_a_checkpoint_shows_its_step_its_configuration_and_norms(workdir):
    torch.manual_seed(0)
    network = BEiT3(NETWORK)
    with torch.no_grad():
        network.mlm_head.bias[3] = float("nan")
    folder = Path(workdir.native_path(f"pretrain/{FP}/ray_train"))
    checkpoint = checkpoint_of(folder, network)
    shown = inspect(checkpoint.uri)
    assert "whole, step 40" in shown and '"width": 32' in shown
    norm = torch.cat([p.detach().flatten() for p in network.blocks[0].parameters()]).norm()
    count = sum(p.numel() for p in network.blocks[0].parameters())
    (line,) = [line for line in shown.splitlines() if "blocks.0" in line]
    cells = [cell.strip() for cell in line.split("│")]
    assert cells[2] == f"{count:,}" and float(cells[3]) == pytest.approx(float(norm), rel=1e-3)
    (line,) = [line for line in shown.splitlines() if "mlm_head" in line]
    assert line.split("│")[5].strip() == "1"
    for file in folder.rglob("*.distcp"):
        file.write_bytes(file.read_bytes()[:-9])
    done = CliRunner().invoke(app, ["inspect", checkpoint.uri])
    assert done.exit_code == 1 and checkpoint.uri in str(done.exception)
    assert "\n" not in str(done.exception)


@pytest.mark.parametrize("number", [5, 33, 1000])
def test_many_rows_are_shown_as_they_are_and_each_row_group_is_read_once(
    tmp_path, spm, monkeypatch, number
):
    store = make(Store(tmp_path / "work"), tmp_path, spm)
    tables = [
        pa.table({"sample_id": [f"{i}-{row}" for row in range(n)]}) for i, n in ((0, 37), (1, 4))
    ]
    folder = store.sub(f"index/long/{FP}")
    commit_tables(folder, tables, row_group_rows=8)
    names = {"stage": "index/long", "fingerprint": FP}
    folder.write_bytes(
        MANIFEST, json.dumps({**json.loads(folder.read(MANIFEST)), **names}).encode()
    )
    groups = []
    read = pq.ParquetFile.read_row_groups

    def counted(file, indexes, **options):
        groups.append((file.metadata.num_rows, *indexes))
        return read(file, indexes, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", counted)
    shown = inspect(folder.uri, "--rows", str(number))
    ids = [name for table in tables for name in table["sample_id"].to_pylist()]
    rows = [int(row) for row in np.linspace(0, 40, min(number, 41))]
    expected = [f"data, row {row}" for row in rows]
    assert [line for line in shown.splitlines() if ", row " in line] == expected
    found = [line.split(": ")[1] for line in shown.splitlines() if line.startswith("  sample_id")]
    assert found == [ids[row] for row in rows]
    assert groups == sorted(set(groups), key=lambda group: (-group[0], group[1]))
    assert all(len(group) == 2 for group in groups) and len(groups) <= 6


@pytest.mark.parametrize("damage", ["cut", "missing", "other bytes", "a flipped byte"])
def test_a_damaged_file_is_named_in_one_line(tmp_path, spm, damage):
    store = make(Store(tmp_path / "work"), tmp_path, spm)
    folder = store.sub(f"pair_tokens/{FP}")
    (part,) = read_manifest(folder).parts
    path = Path(folder.native_path(part.tables["held_out"].path))
    size = path.stat().st_size
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "missing":
        path.unlink()
    elif damage == "other bytes":
        path.write_bytes(b"x" * size)
    else:  # in an image: the file is readable, and as long as before
        content = bytearray(path.read_bytes())
        content[content.index(b"\xff\xd8\xff") + 50] ^= 1
        path.write_bytes(content)
    shown = inspect(f"{store.uri}/pair_tokens")
    assert "row 0" not in shown
    (line,) = [line for line in shown.splitlines() if line.startswith("damaged:")]
    assert str(path) in line
    assert "3" in inspect(f"{store.uri}/pair_tokens", "--rows", "0")  # the manifest is still shown


def test_the_manifest_of_another_output_is_named(tmp_path, spm):
    store = make(Store(tmp_path / "work"), tmp_path, spm)
    folder = store.sub(f"pair_tokens/{FP}")
    folder.write_bytes(MANIFEST, store.read(f"text_tokens/{FP}/{MANIFEST}"))
    done = CliRunner().invoke(app, ["inspect", folder.uri])
    assert f"{MANIFEST}: this is the manifest of text_tokens/{FP}" in str(done.exception)


def test_an_export_shows_the_norms_of_its_weights(tmp_path, spm):
    store = make(Store(tmp_path / "work"), tmp_path, spm)
    weights = save({"vision.a": torch.tensor([3.0, 4.0]), "norm.weight": torch.ones(4)})
    files = {"export/network.json": b'{"width": 32}', "export/model.safetensors": weights}
    commit(store, "export", {}, files=files)
    shown = inspect(f"{store.uri}/export/{FP}")
    assert f"{store.uri}/export/{FP}/export: exported network" in shown and '"width": 32' in shown
    (line,) = [line for line in shown.splitlines() if "│ vision" in line]
    assert [cell.strip() for cell in line.split("│")[2:5]] == ["2", "5", "4"]
    path = Path(store.native_path(f"export/{FP}/export/model.safetensors"))
    for content in (weights[:-1] + bytes([weights[-1] ^ 1]), b"\xff" * len(weights)):
        path.write_bytes(content)  # after a flipped bit it can still be read
        shown = inspect(f"{store.uri}/export/{FP}")
        (line,) = [line for line in shown.splitlines() if line.startswith("damaged:")]
        assert str(path) in line and "│ vision" not in shown


@pytest.mark.parametrize("option", ["--table", "--reject", "--sheet"])
def test_an_option_without_effect_is_refused(workdir, option):
    done = CliRunner().invoke(app, ["inspect", workdir.uri, option, "x"])
    assert f"{option}: {workdir.uri} is a workdir; name an output" in str(done.exception)


def test_a_parquet_file_beside_the_outputs_is_refused(workdir):
    done = CliRunner().invoke(app, ["inspect", f"{workdir.uri}/drawn/truth.parquet"])
    assert "drawn/truth.parquet: no Parquet file of a table; one lies at" in str(done.exception)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("", "no workflow has run here or above"),
        ("work/nothing", "no stage of the last workflow is named 'nothing'; stages: index/own"),
        (
            f"work/index/own/{FP}/stage.json",
            f"name the output that it belongs to, {{}}/index/own/{FP}",
        ),
    ],
)
def test_a_place_that_is_no_output_is_refused_by_name(tmp_path, spm, where, words):
    make(Store(tmp_path / "work"), tmp_path, spm)
    done = CliRunner().invoke(app, ["inspect", "output", f"{tmp_path}/{where}"])
    assert done.exit_code == 1 and words.format(tmp_path / "work") in str(done.exception)
    done = CliRunner().invoke(app, ["inspect", f"{tmp_path}/work/index/own", "--table", "x"])
    assert "no table is named 'x'; tables: data, rejects" in str(done.exception)


@pytest.mark.slow
def test_outputs_on_s3_are_shown_like_local_ones(s3_endpoint, tmp_path, spm):
    uri = f"s3://{BUCKET}/{tmp_path.name}"
    make(Store(uri, StorageParams(endpoint_url=s3_endpoint)), tmp_path, spm)
    shown = inspect(f"{uri}/text_tokens", "--endpoint-url", s3_endpoint)
    assert "tokens: a red circle | one blue square" in shown
    assert f"{uri}/index/own/{FP}" in inspect(uri, "--endpoint-url", s3_endpoint)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "null"),
        (b"\x00" * 2000, "binary, 2.0 kB"),
        (b"\xff\xd8\xff", "damaged JPEG"),
        (0.1234567890, "0.123457"),
        (list(range(20)), "[0, 1, 2, 3, 4, 5, 6, 7, …] (20)"),
        ({"a": 1, "b": None}, "a 1, b null"),
    ],
)
def test_any_value_has_words(value, words):
    assert worded(value).startswith(words)


def test_packed_documents_are_cut_where_they_begin(text):
    tail, head = text.encode("blue square"), text.encode("a red circle")
    assert documents([*tail, BOS, *head], text) == ["blue square", "a red circle"]
    assert documents([], text) == []


def test_norms_are_of_blocks_and_of_modules():
    state = {"blocks.0.a": torch.tensor([3.0]), "blocks.0.b": torch.tensor([4.0]),
             "blocks.1.a": torch.tensor([1.0, torch.inf]), "head.weight": torch.tensor([[2.0]]),
             "ids": torch.tensor([7])}  # fmt: skip
    found = {each.part: (each.num_parameters, each.norm, each.num_not_finite)
             for each in part_norms(state)}  # fmt: skip
    assert found == {"blocks.0": (2, 5.0, 0), "blocks.1": (2, 1.0, 1), "head": (1, 2.0, 0)}


@pytest.mark.parametrize("option", ["--table", "--reject", "--sheet"])
def test_an_option_for_an_output_that_is_not_complete_is_refused(workdir, option):
    workdir.write_bytes("curate/0123456789abcdef/stage.json", b'{"params": {}}')
    where = f"{workdir.uri}/curate/0123456789abcdef"
    done = CliRunner().invoke(app, ["inspect", where, option, "x"])
    assert f"{option}: {where} is not complete" in str(done.exception)
