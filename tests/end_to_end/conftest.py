"""Shared fixture: the comparison of a run with its record."""

from collections.abc import Callable
from functools import partial

import pytest

from tests.end_to_end.stage_outputs import check


@pytest.fixture
def check_stage_outputs(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Compare a run with what is recorded of it, or record it with ``--record-stage-outputs``."""
    return partial(check, recording=request.config.getoption("--record-stage-outputs"))
