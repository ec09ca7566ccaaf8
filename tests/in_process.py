"""A context that runs the slices of a stage in this process, without Ray."""

import io
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console

from orchestration import Context, Slice, Stage
from orchestration.manifest import read_parts
from orchestration.reporting.progress import Shown, StageProgress
from orchestration.reporting.run_log import RunLog
from orchestration.slice_commit import commit_slice
from orchestration.slices import Process
from orchestration.storage.store import Store


class InProcess(Context):
    """Runs missing slices in a random order, as nothing may depend on the order."""

    def _run(
        self,
        slices: Sequence[Slice],
        factory: Callable[[], Process],
        row_group_rows: int,
        *_: Any,
    ) -> None:
        done = read_parts(self.folder)
        process = factory()
        for slice_ in random.sample(list(slices), len(slices)):
            if slice_.id not in done:
                done[slice_.id] = commit_slice(self.folder, slice_, process(slice_), row_group_rows)
        self._parts |= {slice_.id: done[slice_.id] for slice_ in slices}

    def run_task(self, function: Callable[..., Any], *args: Any, **_: float) -> Any:
        return function(*args)


def run_in_process(stage: Stage, folder: Store, inputs: Mapping[str, Store]) -> None:
    """Run a stage whose inputs are committed."""
    progress = StageProgress(stage.name, folder, Shown(Console(file=io.StringIO()), None))
    stage.run(InProcess(stage, folder.name, folder, inputs, progress, RunLog("", "run")))
