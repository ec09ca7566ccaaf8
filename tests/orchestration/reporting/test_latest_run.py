"""The run that ``beit3 ui`` leads to, as a workdir's records name it."""

import json
import shutil

import pytest

from orchestration.errors import ManifestError, RecipeError
from orchestration.reporting.latest_run import latest_run
from orchestration.storage.store import Store


def add_workflow(store: Store, name: str, started_at: float, uri: str, tracking: str = "null"):
    folder = store.sub(f"workflows/{name}")
    folder.write_bytes("record.json", json.dumps({"started_at": started_at}).encode())
    folder.write_bytes("recipe.yaml", f"tracking: {{uri: {tracking}}}".encode())
    if uri:
        run = {"uri": uri, "run_id": f"run of {name}"}
        folder.write_bytes("mlflow_run.json", json.dumps(run).encode())


def test_the_workflow_that_started_last_and_has_a_run_is_found(tmp_path):
    store = Store(str(tmp_path))
    server = "https://mlflow.example.org"
    add_workflow(store, "b", 1, server, server)
    add_workflow(store, "a", 2, server, server)
    add_workflow(store, "c", 3, "")
    assert latest_run(store).run_id == "run of a" and latest_run(store).uri == server


def test_the_database_of_a_moved_workdir_is_found(tmp_path):
    before, after = tmp_path / "before", tmp_path / "after"
    add_workflow(Store(str(before)), "a", 1, f"sqlite:///{before}/mlflow.db")
    shutil.move(before, after)
    assert latest_run(Store(str(after))).uri == f"sqlite:///{after}/mlflow.db"


def test_a_database_that_the_recipe_names_stays_where_it_is(tmp_path):
    uri = f"sqlite:///{tmp_path}/team.db"
    add_workflow(Store(str(tmp_path / "work")), "a", 1, uri, uri)
    assert latest_run(Store(str(tmp_path / "work"))).uri == uri


def test_a_workdir_without_runs_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="no MLflow runs yet"):
        latest_run(Store(str(tmp_path)))


DAMAGED = [
    b"",
    b"{",
    b"[]",
    b"3",
    b"{}",
    b"\xff\xfe",
    b'{"uri": 3, "started_at": null}',
    b"[" * 9999,
]


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
@pytest.mark.parametrize("name", ["record.json", "mlflow_run.json"])
def test_a_damaged_record_is_named_in_one_line(tmp_path, name, content):
    store = Store(str(tmp_path))
    add_workflow(store, "a", 1, "https://mlflow.example.org")
    store.write_bytes(f"workflows/a/{name}", content)
    with pytest.raises(ManifestError) as error:
        latest_run(store)
    assert str(error.value).startswith(f"{tmp_path}/workflows/a/{name} is damaged: ")
    assert "remove this file" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("recipe", ["name: t", "tracking: null", "tracking: 3"])
def test_a_recipe_without_the_section_of_tracking_names_no_server(tmp_path, recipe):
    store = Store(str(tmp_path))
    add_workflow(store, "a", 1, "sqlite:///elsewhere.db")
    store.write_bytes("workflows/a/recipe.yaml", recipe.encode())
    assert latest_run(store).uri == f"sqlite:///{tmp_path}/mlflow.db"
