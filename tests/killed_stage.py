"""A stage in a process of its own, which a test kills with SIGKILL while it works in rounds."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from orchestration.storage.store import Store
from tests.crashes.test_crashes import NOT_OUTPUT

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 900


@dataclass(frozen=True)
class KilledStage:
    """Runs of one stage in one workdir."""

    module: str
    "Program that runs the stage in the workdir that it is given."
    stage: str
    workdir: Path

    def start(self) -> subprocess.Popen:
        log = self._log().open("a")
        return subprocess.Popen(
            [sys.executable, "-m", self.module, str(self.workdir)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
        )

    def finish(self) -> None:
        assert self.start().wait(TIMEOUT_S) == 0, self._log().read_text()

    def kill_in(self, of_round: str) -> None:
        """Kill a run once the first part of a round is there."""
        process = self.start()
        deadline = time.monotonic() + TIMEOUT_S
        while not self.parts(of_round):
            assert process.poll() is None, f"it ended before {of_round}: {self._log().read_text()}"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    def parts(self, of_round: str = "") -> dict[str, int]:
        """Return when each part of a round was written."""
        found = self.workdir.glob(f"{self.stage}/*/parts/{of_round}*.json")
        return {path.name: path.stat().st_mtime_ns for path in found}

    def output(self) -> dict[str, bytes]:
        (folder,) = (self.workdir / self.stage).iterdir()
        store = Store(folder)
        return {path: store.read(path) for path, _ in store.walk() if not path.endswith(NOT_OUTPUT)}

    def _log(self) -> Path:
        return self.workdir.parent / f"{self.workdir.name}.log"
