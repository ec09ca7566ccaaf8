"""Telemetry of the libraries in use: off in every process unless the user sets it."""

import os
from collections.abc import MutableMapping
from typing import Final

_OFF: Final = {"MLFLOW_DISABLE_TELEMETRY": "true", "RAY_USAGE_STATS_ENABLED": "0"}
"Environment variables, which MLflow and Ray read when they are imported or started."


def disable_telemetry(environment: MutableMapping[str, str] = os.environ) -> None:
    """Disable telemetry where the environment says nothing about it."""
    for name, value in _OFF.items():
        environment.setdefault(name, value)
