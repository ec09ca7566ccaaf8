"""Local files of a recipe that change while a workflow runs: nothing of them is committed."""

import io
import os
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pytest
from pydantic import Field
from rich.console import Console

from orchestration import Context, Output, Recipe, Stage, Workflow
from orchestration.dataset import Dataset
from orchestration.errors import RecipeError, StageError
from orchestration.external_files import check_before_commit, check_unchanged
from orchestration.fingerprint import file_digest
from orchestration.manifest import MANIFEST
from orchestration.params import EXTERNAL_FILE, OR_URI, StageParams
from orchestration.recipe import ClusterParams
from orchestration.slices import Slice
from orchestration.storage.store import Store

pytestmark = pytest.mark.usefixtures("one_database")


class Inner(StageParams):
    words: Annotated[str, EXTERNAL_FILE, OR_URI]


class Params(StageParams):
    list: Annotated[str, EXTERNAL_FILE, OR_URI]
    folder: Annotated[str | None, EXTERNAL_FILE] = None
    more: dict[str, Inner] = Field(default_factory=dict)
    size: int = 3


def stage(params: StageParams) -> Stage:
    return Stage("read", lambda context: None, params, seed=4)


@pytest.fixture
def params(tmp_path) -> Params:
    (tmp_path / "list.tsv").write_text("a\n")
    (tmp_path / "words").write_text("b\n")
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "deep" / "x.jpg").write_bytes(b"x")
    return Params(
        list=str(tmp_path / "list.tsv"),
        folder=str(tmp_path / "folder"),
        more={"m.n": Inner(words=str(tmp_path / "words"))},
    )


def edit(path: Path) -> None:
    before = path.stat().st_mtime_ns
    path.write_text("z\n")
    os.utime(path, ns=(before, before + 1))  # the clock of a disk may be coarse


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: edit(p / "list.tsv"), "{}/list.tsv"),
        (lambda p: edit(p / "words"), "{}/words"),
        (lambda p: (p / "folder" / "y.jpg").write_bytes(b""), "{}/folder"),
        (lambda p: (p / "folder" / "deep" / "x.jpg").unlink(), "{}/folder"),
        (lambda p: (p / "list.tsv").unlink(), "{}/list.tsv: no such file"),
    ],
)
def test_a_changed_file_is_named_and_what_was_made_from_it_is_forgotten(
    tmp_path, params, change, words
):
    mine = stage(params)
    planned = mine.identity({})
    folder = Store(tmp_path / "output")
    for path in ("parts/0.json", "data/0.parquet", "hashes/x", "ray_train/step_1/a", "stage.json"):
        folder.write_bytes(path, b"")
    check_unchanged(mine, planned)
    check_before_commit(mine, planned, folder)
    assert len(list(folder.walk())) == 5
    change(tmp_path)
    for check in (check_unchanged, lambda *args: check_before_commit(*args, folder)):
        with pytest.raises(StageError) as error:
            check(mine, planned)
        assert words.format(tmp_path) in str(error.value)
    assert [path for path, _ in folder.walk()] == ["ray_train/step_1/a", "stage.json"]


def test_a_stage_without_files_is_not_compared():
    class Plain(StageParams):
        size: int = 3

    check_unchanged(stage(Plain()), {})


def table_of(path: Path) -> pa.Table:
    return pa.table({"n": [path.read_text()]})


class Lines(StageParams):
    list: Annotated[str, EXTERNAL_FILE]


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before it is read", "after it was read"])
def test_an_edit_during_a_run_commits_nothing_and_the_next_run_is_right(tmp_path, when):
    path = tmp_path / "list"
    path.write_text("old")
    params = Lines(list=str(path))
    edits = [when]

    def first(context: Context) -> None:
        if edits == ["before it is read"]:
            edit(path)
            edits.clear()
        context.commit()

    def read(context: Context) -> None:
        slices = [Slice("0", {})]
        context.map_slices(
            slices, lambda _: Output(1, {"data": pa.table({"n": [path.read_text()]})})
        )
        if edits:
            edit(path)
            edits.clear()
        context.commit(slices)

    recipe = Recipe(name="toy", cluster=ClusterParams(num_cpus=2, object_store_mb=128))
    inputs = {"first": ("first",)}
    flow = Workflow(
        recipe, (Stage("first", first, StageParams()), Stage("read", read, params, inputs))
    )
    store = Store(tmp_path / "work")
    planned = flow.plan(store)[1]
    with pytest.raises(StageError, match=f"changed since the workflow was planned: {path}"):
        flow.run(store, Console(file=io.StringIO()))
    folder = store.sub(planned.path)
    assert not folder.exists(MANIFEST) and not folder.exists("parts")
    for content in ("z\n", "old"):
        path.write_text(content)
        plan = flow.run(store, Console(file=io.StringIO()))
        data = Dataset.open(store.sub(plan[1].path)).read()
        assert data["n"].to_pylist() == [content]
    assert plan[1].fingerprint == planned.fingerprint


def test_a_file_that_may_not_be_read_is_one_sentence_and_in_a_folder_enters_by_size(
    tmp_path, monkeypatch
):
    closed = tmp_path / "closed.jpg"
    closed.write_bytes(b"12345")
    (tmp_path / "open.jpg").write_bytes(b"1")
    opened = Path.open

    def refuse(path: Path, *args: Any, **options: Any) -> Any:
        if path.name == closed.name:
            raise PermissionError(13, "Permission denied")
        return opened(path, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(RecipeError, match=r"closed\.jpg: cannot be read \(Permission denied\)"):
        file_digest(closed)
    before = file_digest(tmp_path)
    os.truncate(closed, 3)
    assert file_digest(tmp_path) != before
