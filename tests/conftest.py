"""Shared fixtures: a small miniature web, and a store of each kind."""

import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from dataprep.miniweb.corpora import WebSize, build
from orchestration.storage.files import StorageParams
from orchestration.storage.store import Store, _files
from tests.s3 import BUCKET, serving_s3

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[name]  # no request of a test leaves this machine

settings.register_profile("no deadline", deadline=None)  # a busy machine must not fail a test
settings.load_profile("no deadline")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record-stage-outputs",
        action="store_true",
        help="write tests/end_to_end/stage_outputs.json instead of comparing with it",
    )


@pytest.fixture(scope="module", autouse=True)
def own_ray_session() -> Iterator[None]:
    """End the session that workflows leave open in this process: the next file needs other CPUs."""
    yield
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a database; creating one takes MLflow longer than a small workflow."""
    return tmp_path_factory.mktemp("mlflow") / "mlflow.db"


@pytest.fixture(scope="module")
def one_database(mlflow_database: Path) -> Iterator[None]:
    """Let the workflows of a file, whose runs nobody counts, use one MLflow database."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{mlflow_database}")
        yield


SMALL_WEB = WebSize(
    seed=5, num_cc3m=150, num_cc12m=140, num_classes=4, num_images_per_class=30, num_documents=250
)


@pytest.fixture(scope="session")
def web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small miniature web."""
    folder = tmp_path_factory.mktemp("web") / "miniweb"
    build(folder, SMALL_WEB)
    return folder


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """An S3 server (moto's) in a process of its own, with one bucket."""
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "hidden-secret"}
    with serving_s3() as endpoint:
        yield endpoint


@pytest.fixture
def s3_of_environment(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URI of an unused prefix on an S3 server that only the environment leads to."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    _files.cache_clear()  # of another endpoint
    yield f"s3://{BUCKET}/{uuid.uuid4().hex}"
    _files.cache_clear()


@pytest.fixture(params=["disk", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    if request.param == "disk":
        return Store(tmp_path)
    endpoint = request.getfixturevalue("s3_endpoint")
    return Store(f"s3://{BUCKET}/{uuid.uuid4().hex}", StorageParams(endpoint_url=endpoint))
