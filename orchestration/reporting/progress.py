"""Progress of a stage: a progress bar on a terminal, plain lines elsewhere, and a heartbeat file.

The heartbeat is ``progress.json`` in the stage's folder. ``beit3 status`` reads it, and a training
worker reports its progress to the driver through it.
"""

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from orchestration.errors import ManifestError, StoreError
from orchestration.storage.json_records import Kind
from orchestration.storage.store import Store

logger = logging.getLogger(__name__)

HEARTBEAT = "progress.json"
_OF_A_HEARTBEAT: Final[Mapping[str, Kind]] = {
    **dict.fromkeys(("done", "total", "updated_at"), (int, float)),
    **dict.fromkeys(("unit", "note", "warning"), str),
}
_PLAIN_LINE_EVERY_S = 10.0
_HEARTBEAT_EVERY_S = 1.0


def read_heartbeat(folder: Store) -> dict[str, Any] | None:
    """Return a stage's last heartbeat, or None if none is readable.

    Its keys are done, total, unit, note, warning, and updated_at (seconds since the epoch).
    """
    if not folder.exists(HEARTBEAT):
        return None
    try:
        return folder.read_json(HEARTBEAT, _OF_A_HEARTBEAT)
    except ManifestError:  # damaged, and soon written again
        return None


def write_heartbeat(
    folder: Store, done: int, total: int, unit: str, note: str, warning: str = ""
) -> None:
    """Write a stage's heartbeat; a failure is logged, as no work depends on it.

    The driver prints ``warning`` once, when it changes.
    """
    record = {"done": done, "total": total, "unit": unit, "note": note, "warning": warning}
    record["updated_at"] = time.time()
    try:
        folder.write_bytes(HEARTBEAT, json.dumps(record).encode())
    except StoreError as error:
        logger.warning("the progress could not be stored: %s", error)


@dataclass(frozen=True)
class Shown:
    """The display of the running stages: a progress bar if there is one, else plain lines."""

    console: Console
    bar: Progress | None


@contextmanager
def showing(console: Console) -> Iterator[Shown]:
    """Yield a display for the running stages while the block runs."""
    if not console.is_terminal:
        yield Shown(console, None)
        return
    with Progress(
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as bar:
        yield Shown(console, bar)


class StageProgress:
    """Displays one running stage and writes its heartbeat."""

    def __init__(self, name: str, folder: Store, shown: "Shown") -> None:
        self.name = name
        self.folder = folder
        self.console = shown.console
        self.done = 0
        self.total = 0
        self.unit = ""
        self.num_rows = 0
        self.rejects: Counter[str] = Counter()
        self.num_failed = 0
        self.remarks: list[str] = []
        "What the user should know of the result, shown below the line of the complete stage."
        self._note = ""
        self._bar = shown.bar
        self._task: TaskID | None = None
        self._started = self._last_line = self._last_beat = time.monotonic()
        self._done_at_start = 0  # value of done at the time self._started

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Display the stage while the block runs."""
        if self._bar is None:
            self.console.print(f"{self.name}: started", highlight=False)
            yield
            return
        self._task = self._bar.add_task(self.name, total=None, note="")
        try:
            yield
        finally:
            self._bar.remove_task(self._task)

    def start(self, num_slices: int, num_rows: int | None, resumed: int) -> None:
        """Set the total, in rows if their number is known, else in slices.

        ``resumed`` is the number of slices that are already committed. A stage that works in
        several rounds starts with each of them anew.
        """
        self.done = self.num_rows = self._done_at_start = 0
        self.rejects.clear()
        self._note = ""
        self.unit = "slices" if num_rows is None else "rows"
        self.total = num_slices if num_rows is None else num_rows
        self._started = time.monotonic()
        if resumed:
            words = f"resumed, {resumed} of {num_slices} slices are committed"
            self.console.print(f"{self.name}: {words}", highlight=False)
        self._show(beat=True)

    def advance(self, num_rows: int, rejects: Counter[str]) -> None:
        """Count one committed slice with its input rows and its rejects by reason."""
        self.done += num_rows if self.unit == "rows" else 1
        self.num_rows += num_rows
        self.rejects.update(rejects)
        self._show(beat=True)

    def remark(self, text: str) -> None:
        """Add a sentence to show below the line that announces the complete stage."""
        self.remarks.append(text)

    def failed(self, num_slices: int) -> None:
        """Set the number of slices that have failed and not succeeded since."""
        self.num_failed = num_slices
        self._show(beat=True)

    @contextmanager
    def following_heartbeat(self) -> Iterator[None]:
        """Display the heartbeat that another process writes while the block runs."""
        stop = threading.Event()
        warned = ""

        def follow() -> None:
            nonlocal warned
            while not stop.wait(0.5):
                heartbeat = None
                with suppress(StoreError):
                    heartbeat = read_heartbeat(self.folder)
                if heartbeat and heartbeat["updated_at"] > began:
                    if not self.total:  # the rate excludes the time before the first step
                        self._started, self._done_at_start = time.monotonic(), heartbeat["done"]
                    self.done, self.total = heartbeat["done"], heartbeat["total"]
                    self.unit, self._note = heartbeat["unit"], heartbeat["note"]
                    self._show(beat=False)
                    if (warning := heartbeat.get("warning", "")) and warning != warned:
                        warned = warning
                        self.console.print(f"{self.name}: {warning}", highlight=False)

        began = time.time()
        thread = threading.Thread(target=follow, name=f"progress {self.name}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def note(self) -> str:
        """Return the text beside the count: rate, rejects and failures, or the heartbeat's note."""
        if self._note:
            return self._note
        seconds = max(time.monotonic() - self._started, 1e-3)
        words = [f"{self.num_rows / seconds:.0f} rows/s"]
        if self.rejects:
            words.append(f"{self.rejects.total()} rejects")
        if self.num_failed:
            words.append(f"{self.num_failed} failed")
        return ", ".join(words)

    def _show(self, beat: bool) -> None:
        now = time.monotonic()
        if beat and (now - self._last_beat > _HEARTBEAT_EVERY_S or self.done in (0, self.total)):
            self._last_beat = now
            write_heartbeat(self.folder, self.done, self.total, self.unit, self.note())
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self.done, total=self.total, note=self.note())
        elif now - self._last_line > _PLAIN_LINE_EVERY_S:
            self._last_line = now
            elapsed = now - self._started
            here = self.done - self._done_at_start
            left = f", {elapsed / here * (self.total - self.done):.0f} s left" if here else ""
            self.console.print(
                f"{self.name}: {self.done}/{self.total} {self.unit}, {self.note()}{left}",
                highlight=False,
            )
