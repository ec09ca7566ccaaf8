"""History of a training: the metrics of its steps, appended to the stage's folder in segments.

A segment is a Parquet file ``history/<first step>-<last step>-<digest>.parquet`` of a fixed number
of rows. A checkpoint names its segments in ``history.json`` and holds the rows after the last
complete one in ``history.parquet``. So a checkpoint costs the same after a million steps as after
ten thousand, and a resume continues exactly the rows that belong to it: segments of an abandoned
attempt are named by no checkpoint in use, and are removed.

A row stands for the ``log_every`` steps up to its ``step``: the mean of each metric over the steps
in which it is finite, the last learning rate, and under ``skipped`` and ``spikes`` the number of
steps that were skipped. Parquet, because any tool reads the folder as one table, columns may be
absent from some rows, and a row of float64 columns takes about 60 bytes; it cannot be appended to,
hence the segments. A lost or damaged one leaves a gap in the curve and costs no training step.
"""

import hashlib
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from model.training.spikes import Spikes
from orchestration.checkpoint_files import newest_whole
from orchestration.manifest import MANIFEST, File, file_of, read_manifest
from orchestration.stage import Context
from orchestration.storage.store import Store
from pipelines.training.points import MAX_POINTS, Points, points_of

FOLDER: Final = "history"
"Folder of the segments within a stage's folder."
INDEX_FILE: Final = "history.json"
TAIL_FILE: Final = "history.parquet"
SEGMENT_ROWS: Final = 5000
_MAX_SEGMENTS_IN_MEMORY: Final = 4
"Rows for so many segments are written before a checkpoint is due."
_DIGITS: Final = 16

Tell = Callable[[str], None]
"Receives a line about a segment that is lost or damaged, and so left out."
Row = dict[str, float]
"Recorded metrics, with the number of steps done under ``step``."


class Interval:
    """Metrics of the steps since the last recorded row."""

    def __init__(self, found: Mapping[str, Sequence[float]] | None = None) -> None:
        self.found = {name: list(values) for name, values in (found or {}).items()}
        "Sum and number of the finite values, and the last value, by name."

    def add(self, metrics: Mapping[str, float]) -> None:
        """Add the metrics of one step."""
        for name, value in metrics.items():
            entry = self.found.setdefault(name, [0.0, 0, value])
            entry[2] = value
            if math.isfinite(value):
                entry[0] += value
                entry[1] += 1

    def row(self, step: int) -> Row:
        """Return the row that ends with ``step``."""
        row: Row = {"step": step}
        for name, (total, number, last) in self.found.items():
            mean = total / number if number else last
            row[name] = {"lr": last, "skipped": total, "spikes": total}.get(name, mean)
        return row


class History:
    """What one worker keeps of the metrics of its training.

    Every worker counts the skipped steps, so that all decide alike. The first one also keeps the
    rows that are in no segment yet.

    Attributes:
        step: number of steps done.
        num_skipped: number of steps skipped because loss or gradient was not finite.
        num_skipped_last: number of consecutive steps skipped for any reason up to ``step``.
        spikes: what judges the losses, whose state a checkpoint holds; None if nothing does.
    """

    def __init__(
        self,
        folder: Store | None,
        log_every: int,
        segment_rows: int = SEGMENT_ROWS,
        spikes: Spikes | None = None,
    ) -> None:
        """Begin a history.

        Args:
            folder: folder of the stage on the first worker, else None.
            log_every: number of steps in a row.
            segment_rows: number of rows in a segment.
            spikes: what judges the losses.
        """
        self.spikes = spikes
        self.step = self.num_skipped = self.num_skipped_last = 0
        self._folder = folder
        self._log_every = log_every
        self._segment_rows = segment_rows
        self._interval = Interval()
        self._rows: list[Row] = []
        self._segments: list[File] = []

    def restore(self, checkpoint: Path) -> None:
        """Continue the history of a checkpoint, a local folder; remove all other segments."""
        index = json.loads((checkpoint / INDEX_FILE).read_text())
        self.step, self.num_skipped = index["step"], index["num_skipped"]
        self.num_skipped_last = index["num_skipped_last"]
        if self.spikes is not None:
            self.spikes.load(index["spikes"])
        if self._folder is not None:
            self._segments = _segments(index)
            self._interval = Interval(index["interval"])
            self._rows = _rows(pq.read_table(checkpoint / TAIL_FILE))
            remove_others(self._folder, self._segments)

    def add(self, metrics: Mapping[str, float], *, is_last: bool) -> Row | None:
        """Add the metrics of the next step; return the row that ends with it, if one does.

        The last step always ends a row. Only the first worker has rows.
        """
        self.step += 1
        self.num_skipped += bool(metrics["skipped"])
        is_skipped = bool(metrics["skipped"] or metrics.get("spikes"))
        self.num_skipped_last = (self.num_skipped_last + 1) * is_skipped
        if self._folder is None:
            return None
        self._interval.add(metrics)
        if self.step % self._log_every and not is_last:
            return None
        row, self._interval = self._interval.row(self.step), Interval()
        self._rows.append(row)
        if len(self._rows) >= _MAX_SEGMENTS_IN_MEMORY * self._segment_rows:
            self._write_segments()
        return row

    def write(self, checkpoint: Path) -> None:
        """Write what belongs to a checkpoint into its local folder; on the first worker only."""
        self._write_segments()
        pq.write_table(_table(self._rows), checkpoint / TAIL_FILE)
        index = {
            "step": self.step,
            "num_skipped": self.num_skipped,
            "num_skipped_last": self.num_skipped_last,
            "spikes": None if self.spikes is None else self.spikes.state(),
            "interval": self._interval.found,
            "segments": [segment.model_dump() for segment in self._segments],
        }
        (checkpoint / INDEX_FILE).write_text(json.dumps(index))

    def _write_segments(self) -> None:
        assert self._folder is not None
        while len(self._rows) >= self._segment_rows:
            rows = self._rows[: self._segment_rows]
            self._segments.append(_write_segment(self._folder, _table(rows)))
            del self._rows[: self._segment_rows]


@dataclass(frozen=True)
class Curve:
    """The complete history of a training."""

    folder: Store
    "Folder of the stage."
    files: tuple[File, ...]
    "Its segments, in order."
    num_skipped: int
    "Number of steps skipped because loss or gradient was not finite."
    num_spikes: int = 0
    "Number of steps skipped because a loss spiked."

    def tables(self) -> Iterator[pa.Table]:
        """Yield the rows, one segment after another."""
        for file in self.files:
            yield pq.read_table(io.BytesIO(self.folder.read(file.path)))

    def points(self, max_points: int = MAX_POINTS) -> Points:
        """Return the finite values of each metric, as :func:`points_of` does."""
        last = max((_steps(file)[1] for file in self.files), default=1)
        return points_of(self.tables(), last, max_points)


def points_so_far(folder: Store, max_points: int, tell: Tell) -> tuple[Points, int]:
    """Return the history of a training that may not be complete, and its last step.

    Args:
        folder: folder of the stage, in which nothing is written.
        max_points: largest number of points of a metric.
        tell: see :data:`Tell`.
    """
    tails: list[pa.Table] = []
    if folder.exists(MANIFEST):
        segments = [f for f in read_manifest(folder).files if f.path.startswith(f"{FOLDER}/")]
    elif checkpoint := newest_whole(folder, read=False):
        segments = _segments(json.loads(checkpoint.read(INDEX_FILE)))
        tails = [pq.read_table(io.BytesIO(checkpoint.read(TAIL_FILE)))]
    else:
        return {}, 0
    whole = _whole(folder, segments, tell)
    tables = [pq.read_table(io.BytesIO(folder.read(segment.path))) for segment in whole] + tails
    last = max((int(table["step"][-1].as_py()) for table in tables if table.num_rows), default=1)
    return points_of(tables, last, max_points), last


def read_curve(folder: Store, checkpoint: Store, tell: Tell) -> Curve:
    """Return the history of a checkpoint; write its last rows to the folder as a segment.

    Args:
        folder: folder of the stage.
        checkpoint: folder of the checkpoint.
        tell: see :data:`Tell`.
    """
    index = json.loads(checkpoint.read(INDEX_FILE))
    segments = _segments(index)
    tail = pq.read_table(io.BytesIO(checkpoint.read(TAIL_FILE)))
    if tail.num_rows:
        segments.append(_write_segment(folder, tail))
    spikes, whole = index.get("spikes") or {"num_found": 0}, _whole(folder, segments, tell)
    return Curve(folder, tuple(whole), index["num_skipped"], spikes["num_found"])


def complete_curve(context: Context, checkpoint: Store) -> Curve:
    """Return the history of a training that has ended; its folder keeps these segments alone.

    Commit :attr:`Curve.files` with the stage.
    """
    curve = read_curve(context.folder, checkpoint, context.progress.remark)
    remove_others(context.folder, curve.files)
    return curve


def remove_others(folder: Store, segments: Sequence[File]) -> None:
    """Remove the segments in a stage's folder that are not among ``segments``."""
    own = {segment.path for segment in segments}
    for name in folder.names(FOLDER, ".parquet"):
        if (path := f"{FOLDER}/{name}") not in own:
            folder.remove(path)


def _segments(index: Mapping[str, Any]) -> list[File]:
    return [File(**segment) for segment in index["segments"]]


def _steps(segment: File) -> tuple[int, int]:
    """Return the steps of the first and the last row of a segment."""
    first, last, _ = segment.path.removeprefix(f"{FOLDER}/").split("-")
    return int(first), int(last)


def _table(rows: Sequence[Row]) -> pa.Table:
    """Return rows as a table: ``step`` int64, each metric float64, null where it is absent."""
    names = list(dict.fromkeys(name for row in rows for name in row if name != "step"))
    columns = {"step": pa.array([int(row["step"]) for row in rows], pa.int64())}
    for name in names:
        columns[name] = pa.array([row.get(name) for row in rows], pa.float64())
    return pa.table(columns)


def _rows(table: pa.Table) -> list[Row]:
    return [
        {name: value for name, value in row.items() if value is not None}
        for row in table.to_pylist()
    ]


def _write_segment(folder: Store, table: pa.Table) -> File:
    file = io.BytesIO()
    pq.write_table(
        table, file, compression="zstd", use_dictionary=False, use_byte_stream_split=True
    )
    data, steps = file.getvalue(), table["step"]
    sha256 = hashlib.sha256(data).hexdigest()
    name = f"{steps[0].as_py():08d}-{steps[-1].as_py():08d}-{sha256[:_DIGITS]}.parquet"
    folder.write_bytes(f"{FOLDER}/{name}", data)
    return File(path=f"{FOLDER}/{name}", bytes=len(data), sha256=sha256)


def _whole(folder: Store, segments: Sequence[File], tell: Tell) -> list[File]:
    """Return the segments that are there as they were written; tell of each other one."""
    damages = {segment.path: _damage(folder, segment) for segment in segments}
    for segment in segments:
        if damage := damages[segment.path]:
            tell("metrics of steps {}-{} are lost: {}".format(*_steps(segment), damage))
    return [segment for segment in segments if not damages[segment.path]]


def _damage(folder: Store, segment: File) -> str | None:
    """Return why the rows of a segment are lost, or None."""
    where = folder.uri_of(segment.path)
    if folder.size(segment.path) is None:
        return f"{where} is missing"
    return None if file_of(folder, segment.path) == segment else f"{where} has another content"
