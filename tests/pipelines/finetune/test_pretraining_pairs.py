"""Contrastive tuning reads the pairs of a pretraining, each on the side that it had there."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pydantic import TypeAdapter

from dataprep.images import encode_jpeg
from dataprep.schemas import EXAMPLES
from orchestration import Dataset
from orchestration.errors import RecipeError
from orchestration.fingerprint import fingerprint_of
from orchestration.manifest import MANIFEST
from orchestration.params import external_files
from orchestration.storage.store import Store
from pipelines.finetune import prepare
from pipelines.finetune.formats.registry import AnyFormat
from pipelines.ingest.preview import preview
from pipelines.tokens.held_out import Split
from tests.committing import commit_tables
from tests.in_process import run_in_process

NEEDS = {"num_images": 1, "num_texts": (1, None), "needs_labels": False}
SIZES = {"download/a": 60, "import/b": 40, "download/extra": 12}
"Rows of the images by stage; the last stage is held out as a whole."
SPLIT = {"held_out_fraction": 0.2, "held_out_by": "image", "seed": 4}


def images_of(stage: str) -> pa.Table:
    """Stored images; some are given a side by their list, and some have a group."""
    number = SIZES[stage]
    names = [f"{stage.partition('/')[2]}/{i}" for i in range(number)]
    return pa.table({
        "sample_id": names,
        "jpeg": [encode_jpeg(np.full((40, 48, 3), i, np.uint8), 90) for i in range(number)],
        "sha256": [f"sha of {name}" for name in names],
        "held_out": pa.array([None, True, False, None] * (number // 4), pa.bool_()),
        "group": pa.array([None, None, None, "g"] * (number // 4)),
    })  # fmt: skip


def captions_of(sample_id: str) -> list[str]:
    """Three captions of which one is that of many images."""
    return [f"one {sample_id}", "all of them", f"two {sample_id}"][: 1 + len(sample_id) % 3]


def workdir(root: Store, **split: object) -> Store:
    """A workdir whose curation kept two of three images; its ``pair_tokens`` was only started."""
    kept = []
    for number, (stage, size) in enumerate(SIZES.items()):
        table = images_of(stage)
        parts = [table.slice(i, 25) for i in range(0, size, 25)]
        commit_tables(root.sub(f"{stage}/f{number}"), parts, row_group_rows=10)
        kept += [
            (number, i, name) for i, name in enumerate(table["sample_id"].to_pylist()) if i % 3
        ]
    table = pa.table({
        "sample_id": [name for _, _, name in kept],
        "dataset": pa.array([number for number, _, _ in kept], pa.int32()),
        "row": pa.array([i for _, i, _ in kept], pa.int64()),
        "captions": [captions_of(name) for _, _, name in kept],
    })  # fmt: skip
    curated = root.sub("curate/c0")
    commit_tables(curated, [table.slice(0, 30), table.slice(30)], row_group_rows=16, name="pairs")
    identity = {
        "name": "pair_tokens",
        "params": SPLIT | split,
        "inputs": {
            "curated": [["curate", "c0+abc"]],
            "images": [[stage, f"f{i}"] for i, stage in enumerate(SIZES)],
            "held_out": [["download/extra", "f2"]],
        },
    }
    root.write_bytes("pair_tokens/p0/stage.json", json.dumps(identity).encode())
    for name, started_at, stages in (
        ("a", 1.0, {"pair_tokens": "gone"}),
        ("b", 2.0, {"pair_tokens": "p0"}),
        ("c", 3.0, {"finetune": "other"}),
    ):
        record = {"name": "own", "started_at": started_at, "stages": stages}
        root.write_bytes(f"workflows/{name}/record.json", json.dumps(record).encode())
    return root


def expected(**split: object) -> dict[str, dict[str, list[str]]]:
    """Captions by sample and part, by the rule of ``pair_tokens`` for one image at a time."""
    values = SPLIT | split
    rule = Split(values["held_out_fraction"], values["seed"], values["held_out_by"])
    parts: dict[str, dict[str, list[str]]] = {"train": {}, "held_out": {}}
    for stage in SIZES:
        for i, row in enumerate(images_of(stage).to_pylist()):
            if i % 3 == 0:
                continue
            row["captions"] = captions_of(row["sample_id"])
            table = pa.Table.from_pylist([row])
            whole = np.array([stage == "download/extra"])
            (captions,), _ = rule.captions_of_sides(table, whole)
            side = "held_out" if rule.held_out(table, whole)[0] else "train"
            parts[side][row["sample_id"]] = captions
    return parts


def files(location: object, **changes: object):
    values = {"format": "pretraining_pairs", "workdir": str(location), "slice_rows": 16, **changes}
    return TypeAdapter(AnyFormat).validate_python(values)


def prepared(tmp_path: Path, source, name: str = "out") -> Dataset:
    folder = Store(tmp_path / name)
    run_in_process(prepare.stage(source, split="train", **NEEDS), folder, {})
    return Dataset.open(folder)


@pytest.mark.parametrize("by", ["image", "caption"])
def test_both_parts_are_those_of_the_pretraining_with_images_as_they_are_stored(tmp_path, by):
    root = workdir(Store(tmp_path / "work"), held_out_by=by)
    sides = expected(held_out_by=by)
    jpegs = {}
    for stage in SIZES:
        table = images_of(stage)
        jpegs |= dict(zip(*(table[c].to_pylist() for c in ("sample_id", "jpeg")), strict=True))
    for part in ("train", "held_out"):
        source = files(root.uri, part=part)
        found = prepared(tmp_path, source, part)
        rows = found.read()
        assert rows.schema.equals(EXAMPLES) and rows.num_rows > 10
        captions = dict(zip(rows["example_id"].to_pylist(), rows["texts"].to_pylist(), strict=True))
        assert captions == sides[part] and len(captions) == rows.num_rows
        assert list(captions) == list(sides[part]), "in the order of curation"
        assert rows["images"].to_pylist() == [[jpegs[name]] for name in captions]
        assert set(map(len, rows["labels"].to_pylist())) == {0}
        assert found.table("rejects").num_rows == 0
        assert [example.id for example in source.examples()] == list(captions)


def test_the_content_counts_and_not_its_place(tmp_path):
    root = workdir(Store(tmp_path / "work"))

    def fingerprint(location: object, **changes: object) -> str:
        stage = prepare.stage(files(location, **changes), split="train", **NEEDS)
        return fingerprint_of(stage.identity({}))

    first = fingerprint(root.uri)
    shutil.copytree(tmp_path / "work", tmp_path / "copy")
    assert fingerprint(tmp_path / "copy") == first != fingerprint(root.uri, part="held_out")
    for number, split in enumerate(({"seed": 5}, {"held_out_fraction": 0.3})):
        other = workdir(Store(tmp_path / f"other-{number}"), **split)
        assert fingerprint(other.uri) != first
    manifest = tmp_path / "copy/curate/c0" / MANIFEST
    manifest.write_text(manifest.read_text() + "\n")
    assert fingerprint(tmp_path / "copy") != first


def test_a_workdir_on_s3_gives_the_same_examples(tmp_path, s3_of_environment):
    remote = workdir(Store(s3_of_environment))
    local = workdir(Store(tmp_path / "work"))
    found = prepared(tmp_path, files(local.uri), "local").read()
    assert prepared(tmp_path, files(remote.uri), "remote").read().equals(found)
    (file,) = external_files(files(remote.uri))
    assert not file.is_remote and file.output is not None
    (line,) = preview(files(remote.uri))
    assert line.endswith("a folder that a workflow has written")


def test_a_plan_expects_the_rows_and_bytes_that_are_copied(tmp_path):
    source = files(workdir(Store(tmp_path / "work")).uri)
    found = prepare.expects(source)
    assert found.rows == round(0.8 * 74) and found.bytes is not None
    assert 0.2 < found.bytes / prepared(tmp_path, source).manifest.num_bytes < 5


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("workflows", "no workdir of a pretraining"),
        ("pair_tokens", "pair_tokens was never started.*--until pair_tokens"),
        ("curate/c0/manifest.json", "curate/c0: not complete or removed"),
        ("import/b/f1/manifest.json", "import/b/f1: not complete or removed"),
        ("", "no workdir of a pretraining"),
    ],
)
def test_what_is_missing_is_one_line(tmp_path, missing, words):
    root = workdir(Store(tmp_path / "work"))
    root.remove(missing) if missing else shutil.rmtree(tmp_path / "work")
    (file,) = external_files(files(root.uri))
    assert file.output is not None
    with pytest.raises(RecipeError, match=words) as error:
        file.output.digest(file.location)
    assert "\n" not in str(error.value)
