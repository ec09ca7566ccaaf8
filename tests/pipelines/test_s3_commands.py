"""Commands on a workdir that lies in an object store: region, endpoint, MLflow's pages, proxies."""

import inspect
import json
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from orchestration.errors import StoreError
from orchestration.storage.files import StorageParams
from orchestration.storage.s3_access import S3Access
from orchestration.storage.store import Store
from pipelines.cli import app
from pipelines.workflows.plan_lines import proxy_lines
from tests.s3 import BUCKET, free_port

OPENING = {
    command.callback.__name__: ["STAGE"] if command.callback.__name__ == "rejects" else []
    for command in app.registered_commands
    if command.callback and "workdir" in inspect.signature(command.callback).parameters
    # A recipe has `storage`.
    and command.callback.__name__ not in (
        "plan", "run", "grid", "sweep", "demo", "embed", "caption", "answer", "classify",
        "detect", "segment",
    )
}  # fmt: skip


def test_the_commands_that_open_a_workdir_are_known():
    assert sorted(OPENING) == ["doctor", "gc", "profile", "rejects", "report", "status", "ui"]


@pytest.mark.parametrize(("command", "arguments"), OPENING.items())
def test_region_and_endpoint_reach_the_store_of_every_command(monkeypatch, command, arguments):
    opened = []

    def open_store(self, root, storage=None):
        opened.append(S3Access(storage))
        raise StoreError("seen")

    monkeypatch.setattr(Store, "__init__", open_store)
    options = ["--workdir", "s3://bucket/x", "--region", "eu-south-2"]
    CliRunner().invoke(app, [command, *arguments, *options])
    CliRunner().invoke(app, [command, *arguments, *options, "--endpoint-url", "http://h:9"])
    assert [access.region for access in opened] == ["eu-south-2"] * 2
    assert [access.endpoint for access in opened] == [
        "https://s3.eu-south-2.amazonaws.com", "http://h:9",
    ]  # fmt: skip


@pytest.mark.slow
def test_the_pages_of_a_workdir_on_s3_are_served(s3_endpoint, tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri)
    run = client.create_run(client.create_experiment("beit3"), run_name="tiny").info
    store = Store(f"s3://{BUCKET}/{tmp_path.name}", StorageParams(endpoint_url=s3_endpoint))
    folder = store.sub("workflows/a")
    folder.write_bytes("record.json", json.dumps({"started_at": 1.0}).encode())
    folder.write_bytes("recipe.yaml", f"tracking: {{uri: '{uri}'}}".encode())
    folder.write_bytes("mlflow_run.json", json.dumps({"uri": uri, "run_id": run.run_id}).encode())
    port = free_port()
    command = [
        *(sys.executable, "-m", "pipelines.cli", "ui", "--workdir", store.uri),
        *("--endpoint-url", s3_endpoint, "--port", str(port)),
    ]
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 150
        while "Ctrl-C" not in (text := (tmp_path / "out").read_text()):
            assert process.poll() is None and time.monotonic() < deadline, text
            time.sleep(0.2)
    finally:
        process.send_signal(2)
        process.wait(60)
    page = f"http://127.0.0.1:{port}/#/experiments/{run.experiment_id}/runs/{run.run_id}"
    assert re.search(re.escape(page), text)


@pytest.mark.parametrize(
    ("variables", "engine", "words"),
    [
        ({}, "native", ""),
        ({"HTTPS_PROXY": "http://ann:hidden@p:3128"}, "native", "https:// through http://p:3128"),
        ({"ALL_PROXY": "p:1", "NO_PROXY": "a.org"}, "native", "http:// through http://p:1, https:"),
        ({"ALL_PROXY": "p:1", "NO_PROXY": "a.org"}, "native", "not for a.org"),
        ({"HTTPS_PROXY": "http://p:3128"}, "img2dataset", ""),
    ],
)
def test_a_plan_names_the_proxies_of_the_downloads(monkeypatch, variables, engine, words):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    recipe = SimpleNamespace(download=SimpleNamespace(engine=engine))
    shown = "".join(proxy_lines(recipe))
    assert words in shown and bool(words) == bool(shown) and "hidden" not in shown
