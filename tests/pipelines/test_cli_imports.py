"""Help and completion load nothing slow; a command loads only what it uses."""

import os
import subprocess
import sys

import pytest

SLOW = {
    "torch", "torchvision", "timm", "ray", "mlflow", "cv2", "numpy", "pandas", "pyarrow", "boto3",
    "sentencepiece", "matplotlib", "aiohttp", "yaml",
}  # fmt: skip
"Pydantic is not in the list: typer itself imports it."
LIST_IMPORTS = """
import sys
from pipelines.cli import app
try:
    app(sys.argv[1:], prog_name="beit3")
except SystemExit as end:
    assert not end.code
sys.stderr.write("\\n".join(sorted(name.partition(".")[0] for name in sys.modules)))
"""


def imported_by(*arguments: str, **environment: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", LIST_IMPORTS, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["grid", "--help"],
        ["sweep", "--help"],
        ["compare", "--help"],
        ["embed", "--help"],
        ["search", "--help"],
        ["try", "--help"],
        ["inspect", "model", "--help"],
        ["recipes"],
    ],
)
def test_help_and_the_list_of_recipes_import_nothing_slow(arguments):
    assert not imported_by(*arguments) & SLOW


def test_completion_imports_nothing_slow_and_offers_recipes():
    done = subprocess.run(
        [sys.executable, "-c", LIST_IMPORTS],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "_BEIT3_COMPLETE": "complete_bash",
            "COMP_WORDS": "beit3 run ba",
            "COMP_CWORD": "2",
        },
    )
    assert done.stdout.split() == ["base"]
    assert not set(done.stderr.split()) & SLOW
