"""Shared fixtures: a small miniature web, drawn once for the session."""

import os
from pathlib import Path

import pytest

from dataprep.miniweb.corpora import WebSize, build

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

SMALL_WEB = WebSize(
    seed=5, num_cc3m=150, num_cc12m=140, num_classes=4, num_images_per_class=30, num_documents=250
)


@pytest.fixture(scope="session")
def web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small miniature web."""
    folder = tmp_path_factory.mktemp("web") / "miniweb"
    build(folder, SMALL_WEB)
    return folder
