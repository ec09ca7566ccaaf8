"""The import of ImageNet-21K: a gzipped archive gives what the plain one gives, and resumes."""

import gzip
import io
import json
import os
import signal
import tarfile
from multiprocessing import get_context
from pathlib import Path

import pytest
from rich.console import Console

from dataprep.sources import gzip_pass, seekable_gzip
from orchestration import Context, Recipe, Slice, Workflow
from orchestration.dataset import Dataset
from orchestration.errors import StageError
from orchestration.recipe import ClusterParams, SliceParams
from orchestration.storage.store import Store
from orchestration.suspects import joined
from pipelines.ingest.import_images import import_slice
from pipelines.ingest.import_images import stage as import_stage
from pipelines.ingest.sources.imagenet21k import ImageNet21k, write_segments


@pytest.fixture(scope="module")
def archives(web, tmp_path_factory) -> tuple[Path, Path]:
    """The miniature web's archive, plain and gzipped."""
    gzipped = tmp_path_factory.mktemp("archive") / "imagenet21k.tar.gz"
    gzipped.write_bytes(gzip.compress((web / "imagenet21k.tar").read_bytes(), 1))
    return web / "imagenet21k.tar", gzipped


def params_of(archive: Path) -> ImageNet21k:
    return ImageNet21k(format="imagenet21k", archive=str(archive))


def test_a_gzipped_archive_gives_the_same_images_as_the_plain_one(archives, store, monkeypatch):
    plain, gzipped = map(params_of, archives)
    small_segments(monkeypatch)
    write_segments(archives[1], store)
    assert len(store.names("segments", ".gzidx")) > 3
    slices = zip(plain.slices(store), gzipped.slices(store), strict=True)
    for slice_, of_gzipped in slices:
        expected = joined(list(import_slice(plain, "in", store, slice_)))
        assert joined(list(import_slice(gzipped, "in", store, of_gzipped))) == expected
        assert expected.num_rows_in == 30


def test_a_damaged_synset_ends_with_a_reject(tmp_path):
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as archive:
        for number in range(2):
            member = tarfile.TarInfo(f"n1_{number}.JPEG")
            member.size = 700
            archive.addfile(member, io.BytesIO(bytes(700)))
    data = inner.getvalue()[:1700]
    (tmp_path / "a.tar").write_bytes(data)
    params = params_of(tmp_path / "a.tar")
    slice_ = Slice("n1", {"wnid": "n1", "offset": 0, "num_bytes": len(data)})
    output = joined(list(import_slice(params, "in", Store(tmp_path), slice_)))
    rejects = output.tables["rejects"].to_pylist()
    assert [(r["sample_id"], r["reason"]) for r in rejects[1:]] == [("in/n1_0+", "damaged_tar")]
    assert output.num_rows_in == 2


def small_segments(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gzip_pass, "SEGMENT_BYTES", 1 << 17)
    patch.setattr(seekable_gzip, "SPACING_BYTES", 1 << 16)


def killed_pass(archive: Path, folder: Path, num_writes: int) -> None:
    """Write segments and end the process without warning in place of a later write."""
    written = []
    write = Store.write_bytes

    def killing(store: Store, path: str, data: bytes) -> None:
        if len(written) == num_writes:
            os.kill(os.getpid(), signal.SIGKILL)
        written.append(path)
        write(store, path, data)

    with pytest.MonkeyPatch.context() as patch:
        small_segments(patch)
        patch.setattr(Store, "write_bytes", killing)
        write_segments(archive, Store(folder))


@pytest.mark.slow
def test_a_killed_pass_over_a_gzipped_archive_goes_on(archives, tmp_path, monkeypatch):
    small_segments(monkeypatch)
    write_segments(archives[1], Store(tmp_path / "whole"))
    whole = {path: Store(tmp_path / "whole").read(path) for path in paths_in(tmp_path / "whole")}
    for num_writes in (1, 7):
        folder = tmp_path / str(num_writes)
        process = get_context("spawn").Process(
            target=killed_pass, args=(archives[1], folder, num_writes)
        )
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        before = paths_in(folder)
        write_segments(archives[1], Store(folder))
        assert before < paths_in(folder) or not before
        assert {path: Store(folder).read(path) for path in paths_in(folder)} == whole


def paths_in(folder: Path) -> set[str]:
    return {path for path, _ in Store(folder).walk("segments")} if folder.exists() else set()


@pytest.mark.slow
def test_a_gzipped_archive_is_listed_once_and_resumed(archives, tmp_path, monkeypatch):
    recipe = Recipe(
        name="images",
        cluster=ClusterParams(num_cpus=2, object_store_mb=128),
        slices=SliceParams(max_attempts=1),
    )
    source = tmp_path / "imagenet21k.tar.gz"
    whole = archives[1].read_bytes()
    params = params_of(source)

    def run(workdir: Store) -> Store:
        stage = import_stage(params, name="in")
        (planned,) = Workflow(recipe, (stage,)).run(workdir, Console(file=io.StringIO()))
        return workdir.sub(planned.path)

    source.write_bytes(whole)
    workdir = Store(tmp_path / "work")

    def killed(*_: object, **__: object) -> None:
        raise StageError("killed after the listing")

    with monkeypatch.context() as patch:
        patch.setattr(Context, "map_slices", killed)
        with pytest.raises(StageError, match="killed"):
            run(workdir)
    (folder,) = (workdir.sub(f"import/in/{name}") for name in workdir.folders("import/in"))
    record = json.loads(folder.read("segments/000000.json"))
    record["tars"] = record["tars"][:2]
    folder.write_bytes("segments/000000.json", json.dumps(record).encode())
    assert run(workdir) == folder
    dataset = Dataset.open(folder)
    assert set(dataset.read()["label"].to_pylist()) == {name for name, _, _ in record["tars"]}
    assert not folder.exists("segments")
    source.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StageError, match=r"imagenet21k\.tar\.gz"):
        run(Store(tmp_path / "other"))
