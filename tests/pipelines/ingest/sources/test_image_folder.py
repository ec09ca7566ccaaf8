"""A folder of images: every file ends as an image or as a reject."""

import os
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from dataprep.images import encode_jpeg
from orchestration.errors import RecipeError
from orchestration.slices import Slice
from orchestration.storage.store import Store
from orchestration.suspects import joined
from pipelines.ingest import import_images
from pipelines.ingest.import_images import import_slice
from pipelines.ingest.sources.image_folder import ImageFolder

UNUSED = Store("unused")
"The stage's folder, which a folder of images does not need."


class Recorder:
    """A context that processes slices at once and records what the stage commits."""

    stage = SimpleNamespace(name="import/own")
    folder = UNUSED

    def local_files(self, params):
        return params

    def map_slices(self, slices: list[Slice], process, **_: object) -> None:
        self.outputs = [joined(list(process(slice_))) for slice_ in slices]
        self.num_rows = [slice_.num_rows for slice_ in slices]

    def commit(self, slices: list[Slice], **_: object) -> None:
        self.committed = slices


@pytest.fixture
def folder(tmp_path):
    pixels = np.full((60, 80, 3), 120, np.uint8)
    for name in ("n01/a.JPEG", "n01/a.png", "n02/deep/b.jpg", "loose.jpg", ".hidden/c.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = encode_jpeg(pixels, 90) if path.suffix != ".png" else cv2.imencode(".png", pixels)[1]
        path.write_bytes(bytes(data))
    (tmp_path / "n02" / "README.txt").write_text("of these images")
    (tmp_path / "n02" / "half.jpg").write_bytes(encode_jpeg(pixels, 90)[:100])
    return tmp_path


@pytest.mark.parametrize("labels", [True, False])
def test_every_file_is_stored_or_rejected(folder, labels):
    params = ImageFolder(format="image_folder", folder=str(folder), labels=labels, slice_files=4)
    context = Recorder()
    import_images.run(context, params, "own")
    assert context.num_rows == [4, 2]
    stored = {
        row["sample_id"]: row["label"]
        for output in context.outputs
        for row in output.tables["data"].to_pylist()
    }
    found = {
        "own/loose.jpg": "", "own/n01/a.JPEG": "n01", "own/n01/a.png": "n01",
        "own/n02/deep/b.jpg": "n02",
    }  # fmt: skip
    assert stored == {name: label if labels else "" for name, label in found.items()}
    rejects = {
        row["sample_id"]: row["reason"]
        for output in context.outputs
        for row in output.tables["rejects"].to_pylist()
    }
    assert rejects == {"own/n02/README.txt": "not_an_image", "own/n02/half.jpg": "undecodable"}


def test_a_file_that_was_removed_is_a_reject(folder):
    params = ImageFolder(format="image_folder", folder=str(folder))
    pieces = import_slice(
        params, "own", UNUSED, Slice("0", {"names": ["loose.jpg", "gone.jpg"]}, 2)
    )
    output = joined(list(pieces))
    (reject,) = output.tables["rejects"].to_pylist()
    assert (reject["sample_id"], reject["reason"]) == ("own/gone.jpg", "missing_file")


def test_an_empty_folder_stops_before_any_work(tmp_path):
    with pytest.raises(RecipeError, match="no files"):
        import_images.run(
            Recorder(), ImageFolder(format="image_folder", folder=str(tmp_path)), "own"
        )


def test_links_and_names_that_are_not_utf8_are_stored_with_escaped_ids(folder, tmp_path_factory):
    data = tmp_path_factory.mktemp("links")
    (data / "cat").symlink_to(folder / "n01")
    (data / "dog").mkdir()
    os.link(folder / "loose.jpg", data / "dog" / os.fsdecode(b"caf\xe9.jpg"))
    os.link(folder / "loose.jpg", data / os.fsdecode(b"\xff.jpg"))
    (data / os.fsdecode(b"n\xe9")).symlink_to(folder / "n01")
    (data / "dog" / "gone.jpg").symlink_to("nowhere")
    (data / "dog" / "up").symlink_to("..")
    context = Recorder()
    params = ImageFolder(format="image_folder", folder=str(data), labels=True)
    import_images.run(context, params, "own")
    (output,) = context.outputs
    stored = {row["sample_id"]: row["label"] for row in output.tables["data"].to_pylist()}
    assert stored == {
        "own/cat/a.JPEG": "cat", "own/cat/a.png": "cat", r"own/dog/caf\xe9.jpg": "dog",
        r"own/\xff.jpg": "", r"own/n\xe9/a.JPEG": r"n\xe9", r"own/n\xe9/a.png": r"n\xe9",
    }  # fmt: skip
    rejects = {row["sample_id"]: row["reason"] for row in output.tables["rejects"].to_pylist()}
    assert rejects == {"own/dog/gone.jpg": "linked_file", "own/dog/up": "linked_file"}
