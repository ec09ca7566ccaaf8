"""A trace of some steps of a running training, by torch's profiler; of the first worker alone.

The steps are named by the recipe (``profile_steps``), or asked for by a file in the stage's
folder, which ``beit3 profile`` writes. The trace is ``profiles/steps-<first>-<last>.json.gz`` in
that folder and an artifact of the stage's MLflow run; https://ui.perfetto.dev opens it.
"""

import json
import logging
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

import torch

from orchestration.errors import StoreError
from orchestration.session import Session
from orchestration.storage.store import Store
from pipelines.training.params import MAX_TRACED_STEPS

logger = logging.getLogger(__name__)

REQUEST: Final = "profile.json"
"File in a stage's folder that asks for a trace of the next ``steps`` steps."
FOLDER: Final = "profiles"
_LOOK_EVERY_S: Final = 2.0


class StepProfiler:
    """Starts and stops the profiler between steps; no failure here ends the training."""

    def __init__(self, session: Session, steps: tuple[int, int] | None) -> None:
        """Prepare.

        Args:
            session: of the worker.
            steps: first and last step to trace, counted from 1; None waits for requests.
        """
        self._session, self._steps = session, steps
        self._looked_at = time.monotonic()
        self._looking = threading.Lock()
        self._requested = 0
        self._profile: Any = None
        self._first = self._last = self._done = 0

    def look(self) -> None:
        """Look for a request; called from each thread that prepares batches."""
        folder = self._session.folder
        if folder is None or not self._looking.acquire(blocking=False):
            return  # another thread looks, and one request is one trace
        try:
            if time.monotonic() - self._looked_at >= _LOOK_EVERY_S:
                self._looked_at = time.monotonic()
                self._take_request(folder)
        finally:
            self._looking.release()

    def _take_request(self, folder: Store) -> None:
        """Remove the request, if there is one, and remember its number of steps."""
        try:
            if folder.exists(REQUEST):
                request = folder.read(REQUEST)
                folder.remove(REQUEST)
                steps = int(json.loads(request)["steps"])
                self._requested = min(max(steps, 1), MAX_TRACED_STEPS)
        except (StoreError, ValueError, KeyError, TypeError) as error:
            logger.warning("a request for a trace could not be read: %s", error)

    def before(self, step: int) -> None:
        """Start the trace if this step, counted from 1, is its first."""
        if self._session.folder is None or self._profile is not None:
            return
        number, self._requested = self._requested, 0
        if self._steps is not None and step == self._steps[0]:
            number = self._steps[1] - step + 1
        if not number:
            return
        self._first, self._last = step, step + number - 1
        activities = [torch.profiler.ProfilerActivity.CPU]
        if self._session.device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        try:
            profile = torch.profiler.profile(activities=activities)
            profile.start()
            self._profile = profile
        except RuntimeError as error:  # another profiler runs in this process
            logger.warning("the profiler could not be started: %s", error)

    def after(self, step: int) -> None:
        """Stop the trace and store it if this step, counted from 1, is its last."""
        self._done = step
        if step >= self._last:
            self.close()

    def close(self) -> None:
        """Store the steps that are traced so far, as the training ends or is stopped."""
        if self._profile is None:
            return
        profile, self._profile = self._profile, None
        name = f"steps-{self._first:08d}-{self._done:08d}.json.gz"
        try:
            profile.stop()
            if self._done < self._first:  # the first step failed
                return
            path = Path(tempfile.mkdtemp(prefix="profile_")) / name
            profile.export_chrome_trace(str(path))
            assert self._session.folder is not None
            self._session.folder.write_file(f"{FOLDER}/{name}", path)
            self._session.messages.artifact(path, FOLDER)
        except (StoreError, OSError, RuntimeError) as error:
            logger.warning("the trace %s could not be stored: %s", name, error)
