"""``beit3 ui``: the MLflow pages of a workdir's runs."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from typing import Annotated, Final
from urllib.parse import urlencode

import typer

from pipelines.commands.options import DEMO_WORKDIR, Endpoint, Region, Workdir, console, say
from pipelines.commands.workdir import open_workdir

_START_TIMEOUT_S: Final = 120
_ORDER: Final = "metrics.`loss/mlm`"


def ui(
    workdir: Workdir = DEMO_WORKDIR,
    endpoint_url: Endpoint = None,
    region: Region = None,
    port: Annotated[int, typer.Option(help="Port of the MLflow server that is started.")] = 5000,
    open_: Annotated[bool, typer.Option("--open", help="Open the runs in a web browser.")] = False,
) -> None:
    """Print the addresses of a workdir's runs in the MLflow UI; serve the UI if no server does.

    Example: beit3 ui --workdir runs/demo --open
    """
    from orchestration.reporting.latest_run import latest_run

    run = latest_run(open_workdir(workdir, endpoint_url, region))
    if run.uri.startswith(("http://", "https://")):
        _show_pages(run.uri, run.uri, run.run_id, open_)
        return
    if endpoint_url:
        os.environ.setdefault("MLFLOW_S3_ENDPOINT_URL", endpoint_url)
    server = f"http://127.0.0.1:{port}"
    command = [
        *(sys.executable, "-W", "ignore", "-m", "mlflow", "ui", "--backend-store-uri", run.uri),
        *("--port", str(port), "--workers", "1", "--uvicorn-opts", "--log-level warning"),
    ]
    console.print("starting the MLflow server")
    with subprocess.Popen(command) as process:
        try:
            _wait_until_served(process, server)
            _show_pages(server, run.uri, run.run_id, open_)
            console.print("Ctrl-C stops the server")
            process.wait()
        except KeyboardInterrupt:
            console.print("stopped")
        finally:
            process.terminate()


def _wait_until_served(process: "subprocess.Popen[bytes]", server: str) -> None:
    from orchestration.errors import StoreError

    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StoreError(
                f"the MLflow server for {server} ended at once; see its output above, or choose "
                "another --port"
            )
        try:
            with urllib.request.urlopen(f"{server}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise StoreError(f"the MLflow server did not answer at {server} in {_START_TIMEOUT_S} s")


def _show_pages(server: str, uri: str, run_id: str, open_browser: bool) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    from orchestration.errors import StoreError

    try:
        experiment_id = MlflowClient(uri).get_run(run_id).info.experiment_id
    except MlflowException as error:
        raise StoreError(f"{uri}: the run {run_id} cannot be read ({error})") from None
    pages = run_pages(server, experiment_id, run_id)
    for name, page in pages.items():
        say(f"{name:<14}{page}")
    if open_browser:
        webbrowser.open(pages["all runs"])


def run_pages(server: str, experiment_id: str, run_id: str) -> dict[str, str]:
    """Return the addresses of a workflow's run and of its experiment's runs with their charts.

    Without ``workflowType`` MLflow opens an experiment in its view for generative AI, which shows
    no runs. Runs ordered by date are nested and folded; ordered by a metric they are a flat list,
    and the charts show the metrics of all of them.
    """
    runs = f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs"
    view = {"workflowType": "machine_learning"}
    charts = {"compareRunsMode": "CHART", "orderByKey": _ORDER, "orderByAsc": "false"}
    return {
        "workflow run": f"{runs}/{run_id}?{urlencode(view)}",
        "all runs": f"{runs}?{urlencode(view | charts)}",
    }
