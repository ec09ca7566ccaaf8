"""The libraries' telemetry is off unless the user sets it, asked of the libraries themselves."""

import os
import subprocess
import sys

import pytest

ASK = """
import orchestration
from mlflow.telemetry.utils import is_telemetry_disabled
from ray._common.usage.usage_lib import usage_stats_enabled
print(not is_telemetry_disabled(), usage_stats_enabled())
"""
SIGNS_OF_TESTS = ("PYTEST_CURRENT_TEST", "CI", "GITHUB_ACTIONS", "GITLAB_CI", "DO_NOT_TRACK")
NAMES = ("MLFLOW_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED")


@pytest.mark.parametrize(
    ("variables", "enabled"),
    [
        ({}, "False False"),
        ({"MLFLOW_DISABLE_TELEMETRY": "false"}, "True False"),
        ({"RAY_USAGE_STATS_ENABLED": "1"}, "False True"),
        ({"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}, "False False"),
    ],
)
def test_telemetry_is_off_unless_the_user_sets_it(variables, enabled, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k not in (*SIGNS_OF_TESTS, *NAMES)}
    environment |= {"HOME": str(tmp_path), "HTTPS_PROXY": "http://127.0.0.1:9", **variables}
    asked = subprocess.run(
        [sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True
    )
    assert asked.stdout.split("\n")[-2] == enabled
