"""``beit3 ui`` prints addresses on the tracking server that the workdir's records name."""

from types import SimpleNamespace
from urllib.parse import parse_qs

import mlflow
import pytest
from typer.testing import CliRunner

from orchestration.reporting import latest_run
from pipelines.cli import app
from pipelines.commands.ui import run_pages


def test_pages_open_in_the_machine_learning_view():
    pages = run_pages("http://localhost:5000/", "3", "abc")
    assert pages["workflow run"].startswith("http://localhost:5000/#/experiments/3/runs/abc?")
    assert pages["all runs"].startswith("http://localhost:5000/#/experiments/3/runs?")
    for page in pages.values():
        assert parse_qs(page.partition("?")[2])["workflowType"] == ["machine_learning"]


@pytest.mark.parametrize("open_", [True, False])
def test_a_tracking_server_is_linked_and_not_started(monkeypatch, tmp_path, open_):
    server = "https://mlflow.example.org"
    run = latest_run.LatestRun(server, "abc")
    seen = []
    info = SimpleNamespace(info=SimpleNamespace(experiment_id="7"))
    client = SimpleNamespace(get_run=lambda run_id: info)
    monkeypatch.setattr(latest_run, "latest_run", lambda store: run)
    monkeypatch.setattr(mlflow, "MlflowClient", lambda uri: client)
    monkeypatch.setattr("webbrowser.open", seen.append)
    arguments = ["ui", "--workdir", str(tmp_path), *(["--open"] if open_ else [])]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    pages = run_pages(server, "7", "abc")
    assert all(page in result.output for page in pages.values())
    assert seen == ([pages["all runs"]] if open_ else [])
