"""Annotated archives: each image ends as a stored pair or as a reject with a reason."""

import io
import json
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dataprep.images import encode_jpeg
from orchestration.errors import RecipeError
from orchestration.slices import Slice
from orchestration.storage.store import Store
from orchestration.suspects import joined
from pipelines.ingest.import_images import import_slice, run
from pipelines.ingest.sources.coco import Coco
from pipelines.ingest.sources.flickr30k import Flickr30k
from pipelines.ingest.sources.visual_genome import VisualGenome
from pipelines.ingest.sources.webdataset import WebDataset
from tests.dataprep.test_annotated import coco_image, region

UNUSED = Store("unused")
"The stage's folder, which is read only for files given by URI."


def jpeg(side: int = 80) -> bytes:
    return encode_jpeg(np.full((side, side, 3), 99, np.uint8), 90)


@pytest.fixture
def archives(tmp_path):
    """Two archives: images 1 to 4, of which 2 is no image and 4 is tiny."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for folder in ("train2014/COCO_train2014_", "VG_100K/"):
            for number, data in ((1, jpeg()), (2, b"\xff\xd8\xff nothing"), (4, jpeg(8))):
                name = f"{number:012d}" if "COCO" in folder else number
                archive.writestr(f"{folder}{name}.jpg", data)
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("VG_100K_2/5.jpg", jpeg())
        archive.writestr("VG_100K_2/6.jpg", jpeg())
    return str(tmp_path / "a.zip"), str(tmp_path / "b.zip")


def prepared(params, folder: Store):
    params.prepare(SimpleNamespace(folder=folder, run_task=lambda task, *args: task(*args)))
    return list(params.slices(folder))


def outcome(params, folder: Path, total: int) -> dict[str, str]:
    (slice_,) = prepared(params, Store(folder))
    output = joined(list(import_slice(params, "s", Store(folder), slice_)))
    assert output.num_rows_in == total
    stored = {row["sample_id"]: "ok" for row in output.tables["data"].to_pylist()}
    rejects = output.tables["rejects"].to_pylist()
    both = stored | {row["sample_id"]: row["reason"] for row in rejects}
    assert len(both) == len(stored) + len(rejects) == total
    return {name.removeprefix("s/"): reason for name, reason in both.items()}


def test_each_coco_image_is_stored_or_rejected(tmp_path, archives):
    images = [coco_image(n, "train", "" if n == 3 else "A caption") for n in (1, 2, 3, 4, 5)]
    path = tmp_path / "coco.json"
    path.write_text(json.dumps({"images": images}))
    params = Coco(
        format="coco", annotations=str(path), train_images=archives[0], val_images=archives[1]
    )
    assert outcome(params, tmp_path, 5) == {
        "1": "ok", "2": "undecodable", "3": "empty_caption", "4": "too_small", "5": "missing_file",
    }  # fmt: skip


def test_each_flickr30k_image_is_stored_or_rejected(tmp_path):
    folder = tmp_path / "flickr30k-images"
    folder.mkdir()
    (tmp_path / "secret.jpg").write_bytes(jpeg())
    (folder / "36979.jpg").write_bytes(jpeg())
    (folder / "65567.jpg").write_bytes(b"nothing")

    def image(name: str, split: str) -> dict:
        sentences = [{"raw": f"A dog of {split} .", "tokens": [], "imgid": 0, "sentid": 0}]
        return {
            "sentids": [0],
            "imgid": 0,
            "sentences": sentences,
            "split": split,
            "filename": name,
        }

    images = [
        image("1.jpg", "train"),
        image("36979.jpg", "test"),
        image("65567.jpg", "val"),
        image("../secret.jpg", "test"),
        image("7.jpg", "test"),
    ]
    path = tmp_path / "dataset_flickr30k.json"
    path.write_text(json.dumps({"images": images, "dataset": "flickr30k"}))
    params = Flickr30k(format="flickr30k", annotations=str(path), images=str(folder))
    assert outcome(params, tmp_path, 4) == {
        "36979": "ok", "65567": "not_an_image", "secret": "missing_file", "7": "missing_file",
    }  # fmt: skip


def test_visual_genome_rejects_images_that_coco_evaluates_on(tmp_path, archives):
    def written(name: str, content: object) -> str:
        (tmp_path / name).write_text(json.dumps(content))
        return str(tmp_path / name)

    regions = [{"id": n, "regions": [region("a dog"), region("a cat")]} for n in (1, 5, 6)]
    data = [{"image_id": n, "coco_id": c} for n, c in ((1, None), (5, 30), (6, 9))]
    coco = {"images": [coco_image(9, "train", "x"), coco_image(30, "test", "x")]}
    params = VisualGenome(
        format="visual_genome",
        annotations=written("regions.json", regions),
        images=archives[0],
        images2=archives[1],
        image_data=written("image_data.json", data),
        coco=written("coco.json", coco),
    )
    assert outcome(params, tmp_path, 3) == {"1": "ok", "5": "evaluation_image", "6": "ok"}
    slice_ = Slice("0", {"start": 0, "stop": 3})
    output = joined(list(import_slice(params, "s", Store(tmp_path), slice_)))
    assert sorted(output.tables["data"]["captions"][0].as_py()) == ["a cat", "a dog"]


def test_a_file_of_another_format_stops_the_stage_before_any_work(tmp_path, archives):
    path = tmp_path / "coco.json"
    path.write_text("[]")
    params = Coco(
        format="coco", annotations=str(path), train_images=archives[0], val_images=archives[1]
    )
    context = SimpleNamespace(
        local_files=lambda params: params,
        folder=Store(tmp_path),
        run_task=lambda task, *args: task(*args),
    )
    with pytest.raises(RecipeError, match=r"coco\.json: not a file of Karpathy's"):
        run(context, params, "s")
    path.write_text(json.dumps({"images": []}))
    with pytest.raises(RecipeError, match=r"coco\.json: File is not a zip file"):
        run(context, params.model_copy(update={"train_images": str(path)}), "s")
    assert prepared(params, Store(tmp_path)) == []


def test_each_sample_of_img2datasets_tars_is_stored_or_rejected(tmp_path):
    def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))

    folder = tmp_path / "shards"
    folder.mkdir()
    with tarfile.open(folder / "00000.tar", "w") as archive:
        add(archive, "000000000.jpg", jpeg())
        add(archive, "000000000.json", json.dumps({"caption": "A  dog", "url": "x"}).encode())
        add(archive, "000000001.json", json.dumps({"caption": "unseen"}).encode())
        add(archive, "000000002.jpg", jpeg())
        add(archive, "000000002.txt", b"a \xff cat")
        add(archive, "000000002.json", json.dumps({"caption": "not this"}).encode())
        add(archive, "000000003.jpg", jpeg())
        add(archive, "000000004.jpg", b"nothing")
        add(archive, "000000004.txt", b"a caption")
    whole = (folder / "00000.tar").read_bytes()
    (folder / "00001.tar").write_bytes(whole[:700])
    params = WebDataset(format="webdataset", folder=str(folder))
    slices = list(params.slices(UNUSED))
    assert [slice_.payload["name"] for slice_ in slices] == ["00000.tar", "00001.tar"]
    output = joined(list(import_slice(params, "own", UNUSED, slices[0])))
    stored = {r["sample_id"]: r["captions"] for r in output.tables["data"].to_pylist()}
    assert stored == {
        "own/00000/000000000": ["A dog"], "own/00000/000000002": ["a \ufffd cat"],
    }  # fmt: skip
    rejects = {r["sample_id"]: r["reason"] for r in output.tables["rejects"].to_pylist()}
    assert rejects == {
        "own/00000/000000001": "missing_file",
        "own/00000/000000003": "empty_caption",
        "own/00000/000000004": "not_an_image",
    }
    assert output.num_rows_in == 5
    damaged = joined(list(import_slice(params, "own", UNUSED, slices[1])))
    (reject,) = damaged.tables["rejects"].to_pylist()
    assert reject["reason"] == "damaged_tar" and "00001.tar" in reject["detail"]
