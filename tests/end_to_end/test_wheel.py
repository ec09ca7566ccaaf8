"""The examples work from an installed wheel, outside the repository."""

import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 900


def call(*command: str | Path, folder: Path) -> str:
    """Run a command with nothing of the repository on its path."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A fresh environment with the wheel and, by path, the dependencies of the running one."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in call(*listed, folder=ROOT).splitlines():
        if (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "source" / name)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    build = ("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), "./source")
    call(*pip, *build, folder=folder)
    call(sys.executable, "-m", "venv", "--without-pip", str(folder / "venv"), folder=folder)
    python = folder / "venv" / "bin" / "python"
    (wheel,) = folder.glob("*.whl")
    call(*pip, "--python", str(python), "install", "--no-deps", str(wheel), folder=folder)
    packages = call(python, "-c", "import site; print(site.getsitepackages()[0])", folder=folder)
    Path(packages.strip(), "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    return folder


def test_the_installed_package_is_the_wheels(installed):
    python = installed / "venv" / "bin" / "python"
    location = call(python, "-c", "import pipelines; print(pipelines.__file__)", folder=installed)
    assert Path(location.strip()).is_relative_to(installed / "venv")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], ["demo", "recipes", "doctor"]),
        (["recipes"], ["tiny", "base", "giant"]),
        (["plan", "tiny", "--workdir", "runs/tiny", "--set", "train.steps=500"], ["pretrain"]),
        (["plan", "base", "--shrink", "--workdir", "runs/base"], ["import/visual_genome"]),
        (["inspect", "model", "giant", "--workers", "256", "--sharded"], ["692.36"]),
        (["doctor"], ["Ray", "MLflow"]),
    ],
)
def test_a_command_works_outside_the_repository(installed, arguments, words):
    folder = installed / "elsewhere"
    folder.mkdir(exist_ok=True)
    output = call(installed / "venv" / "bin" / "beit3", *arguments, folder=folder)
    for word in words:
        assert word in output
