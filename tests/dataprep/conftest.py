"""Shared fixture: a miniature web with every source."""

from pathlib import Path

import pytest

from dataprep.miniweb.corpora import build
from tests.dataprep.webs import WHOLE_WEB


@pytest.fixture(scope="session")
def whole_web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a miniature web with every source."""
    folder = tmp_path_factory.mktemp("whole") / "miniweb"
    build(folder, WHOLE_WEB)
    return folder
