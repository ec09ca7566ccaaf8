"""Garbage collection removes the outputs that no kept workflow record names, and only those."""

import json
from datetime import timedelta

import pytest

from orchestration import gc as gc_module
from orchestration.errors import ManifestError
from orchestration.gc import abort_stale_uploads, collect, garbage
from orchestration.manifest import MANIFEST
from orchestration.plan import IDENTITY, latest_record, recipe_path
from orchestration.storage.store import Store


def output(store: Store, path: str, complete: bool = True) -> None:
    store.write_bytes(f"{path}/{IDENTITY}", b"{}")
    store.write_bytes(f"{path}/data/000000.parquet", b"12345")
    if complete:
        store.write_bytes(f"{path}/{MANIFEST}", b"{}")


def record(store: Store, name: str, started_at: float, **stages: str) -> None:
    text = json.dumps({"name": name, "stages": stages, "started_at": started_at})
    store.write_bytes(f"workflows/{name}/record.json", text.encode())


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"name": 1, "stages": []}'])
@pytest.mark.parametrize("use", [garbage, latest_record])
def test_a_damaged_record_is_named_and_nothing_is_taken_for_garbage(tmp_path, use, content):
    workdir = Store(tmp_path)
    output(workdir, "curate/a1")
    record(workdir, "good", 1.0, curate="a1")
    workdir.write_bytes("workflows/bad/record.json", content)
    with pytest.raises(
        ManifestError, match=r"/workflows/bad/record.json is damaged: .*remove this"
    ):
        use(workdir)


def test_only_an_output_that_no_record_names_is_garbage(store):
    for path in ("curate/a1", "curate/a2", "index/web/b1", "pretrain/c1", "pretrain/c2"):
        output(store, path, complete=path != "pretrain/c2")
    record(store, "old", 1.0, curate="a1", **{"index/web": "b1"}, pretrain="c1")
    record(store, "new", 2.0, curate="a2", **{"index/web": "b1"}, pretrain="c1")
    found = garbage(store)
    assert [(item.path, item.what) for item in found] == [("pretrain/c2", "unfinished")]
    assert found[0].bytes == 7
    found = garbage(store, keep_last=1)
    assert [item.path for item in found] == ["curate/a1", "pretrain/c2"]
    collect(store, found)
    left = {path for path, _ in store.walk()}
    assert "curate/a2/manifest.json" in left and "index/web/b1/manifest.json" in left
    assert not any(path.startswith(("curate/a1", "pretrain/c2")) for path in left)
    assert garbage(store, keep_last=1) == []


def test_an_output_that_a_kept_recipe_names_by_its_path_is_kept(store):
    for path in ("text_tokenizer/t1", "text_tokenizer/t2", "pretrain/c1"):
        output(store, path)
    record(store, "old", 1.0, text_tokenizer="t1")
    record(store, "new", 2.0, pretrain="c1")
    recipe = f"text_tokenizer: {{given: {store.uri}/text_tokenizer/t1/spm.model}}"
    store.write_bytes(recipe_path({"pretrain": "c1"}), recipe.encode())
    assert [item.path for item in garbage(store, keep_last=1)] == ["text_tokenizer/t2"]


def test_stale_multipart_uploads_are_aborted(store, monkeypatch):
    if store.is_local:
        assert abort_stale_uploads(store) == 0
        return
    bucket, _, prefix = store.native_path().partition("/")
    client = store.files.client
    for key in (f"{prefix}/big", f"{prefix}-neighbor/big"):
        client.create_multipart_upload(Bucket=bucket, Key=key)
    # moto gives every upload a fixed date in the past
    monkeypatch.setattr(gc_module, "STALE_UPLOAD", timedelta(days=100_000))
    assert abort_stale_uploads(store) == 0
    monkeypatch.setattr(gc_module, "STALE_UPLOAD", timedelta(0))
    assert abort_stale_uploads(store) == 1
    left = client.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert f"{prefix}-neighbor/big" in [upload["Key"] for upload in left]
    for upload in left:
        client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
