"""Commands that only read JSON from the store must start fast: the engine imports little."""

import json
import subprocess
import sys

import pytest

HEAVY = ("ray", "mlflow", "torch", "cv2", "boto3", "pandas", "pyarrow", "numpy")


@pytest.mark.parametrize(
    "module",
    [
        "orchestration",
        "orchestration.plan",
        "orchestration.workflow",
        "orchestration.gc",
        "orchestration.reporting.summary",
        "orchestration.storage.lock",
        "orchestration.storage.store",
    ],
)
def test_importing_the_engine_imports_no_heavy_library(module):
    script = f"import json, sys, {module}; sys.stdout.write(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert not set(HEAVY) & set(json.loads(done.stdout))
