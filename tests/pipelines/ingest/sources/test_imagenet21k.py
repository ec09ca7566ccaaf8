"""The import of ImageNet-21K: a gzipped archive gives what the plain one gives, and resumes."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest
from rich.console import Console

from orchestration import Context, Recipe, Slice, Workflow
from orchestration.dataset import Dataset
from orchestration.errors import StageError
from orchestration.recipe import ClusterParams, SliceParams
from orchestration.storage.store import Store
from pipelines.ingest.import_images import import_slice
from pipelines.ingest.import_images import stage as import_stage
from pipelines.ingest.sources.imagenet21k import ImageNet21k, write_listing


@pytest.fixture(scope="module")
def archives(web, tmp_path_factory) -> tuple[Path, Path]:
    """The miniature web's archive, plain and gzipped."""
    gzipped = tmp_path_factory.mktemp("archive") / "imagenet21k.tar.gz"
    gzipped.write_bytes(gzip.compress((web / "imagenet21k.tar").read_bytes(), 1))
    return web / "imagenet21k.tar", gzipped


def params_of(archive: Path) -> ImageNet21k:
    return ImageNet21k(format="imagenet21k", archive=str(archive))


def test_a_gzipped_archive_gives_the_same_images_as_the_plain_one(archives, store):
    plain, gzipped = map(params_of, archives)
    write_listing(archives[1], store)
    for synset in json.loads(store.read("listing/synsets.json")):
        slice_ = Slice(synset["wnid"], synset)
        expected = import_slice(plain, "in", store, slice_)
        assert import_slice(gzipped, "in", store, slice_) == expected
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
    output = import_slice(params, "in", Store(tmp_path), slice_)
    rejects = output.tables["rejects"].to_pylist()
    assert [(r["sample_id"], r["reason"]) for r in rejects[1:]] == [("in/n1_0+", "damaged_tar")]
    assert output.num_rows_in == 2


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
    listed = folder.read("listing/synsets.json")
    shortened = json.loads(listed)[:2]
    folder.write_bytes("listing/synsets.json", json.dumps(shortened).encode())
    assert run(workdir) == folder
    dataset = Dataset.open(folder)
    assert set(dataset.read()["label"].to_pylist()) == {s["wnid"] for s in shortened}
    assert not folder.exists("listing")
    source.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StageError, match=r"imagenet21k\.tar\.gz"):
        run(Store(tmp_path / "other"))
