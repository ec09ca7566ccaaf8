"""The history of a training: segments, the rows of an interval, resumes, damage, its size.

The loop that fills it is tested in ``test_loop``; with Ray Train in ``tests/crashes``.
"""

import math
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestration.storage.store import Store
from pipelines.training.history import FOLDER, INDEX_FILE, TAIL_FILE, History, read_curve

SEGMENT_ROWS = 4


def metrics(step: int) -> dict[str, float]:
    """Metrics of a step, of which step 7 is skipped and each tenth has a further one."""
    found = {"loss": 5 / step, "lr": step / 8, "skipped": 0.0}
    if step == 7:
        found |= {"loss": math.nan, "skipped": 1.0}
    return found | ({"epoch/usage": 0.5} if step % 10 == 0 else {})


class Trial:
    """A stage's folder and its checkpoints."""

    def __init__(self, folder: Path, log_every: int = 1, segment_rows: int = SEGMENT_ROWS) -> None:
        self.local, self.folder = folder, Store(folder)
        self.log_every, self.segment_rows = log_every, segment_rows

    def checkpoint(self, step: int) -> Path:
        return self.local / f"step_{step}"

    def train(self, start: int, stop: int, *, end: int, factor: float = 1) -> None:
        """Add the steps after ``start`` up to ``stop`` of ``end``, and save a checkpoint."""
        history = History(self.folder, self.log_every, self.segment_rows)
        if start:
            history.restore(self.checkpoint(start))
        for step in range(start + 1, stop + 1):
            found = metrics(step)
            history.add(found | {"loss": found["loss"] * factor}, is_last=step == end)
        self.checkpoint(stop).mkdir(exist_ok=True)
        history.write(self.checkpoint(stop))

    def curve(self, step: int) -> pa.Table:
        found = read_curve(self.folder, Store(self.checkpoint(step)), pytest.fail)
        return pa.concat_tables(found.tables(), promote_options="default")

    def segments(self) -> list[str]:
        return [name.rpartition("-")[0] for name in self.folder.names(FOLDER, ".parquet")]


@pytest.mark.parametrize("stops", [(23,), (4, 8, 23), (1, 2, 3, 5, 11, 22, 23)])
def test_a_history_is_the_same_however_often_it_is_saved_and_resumed(tmp_path, stops):
    trial = Trial(tmp_path)
    for start, stop in zip((0, *stops), stops, strict=False):
        trial.train(start, stop, end=23)
    assert trial.segments() == [f"{a:08d}-{a + 3:08d}" for a in (1, 5, 9, 13, 17)]
    rows = trial.curve(23).to_pylist()
    assert [row["step"] for row in rows] == list(range(1, 24))
    for row in rows:
        given = metrics(row["step"])
        assert row["loss"] == pytest.approx(given["loss"], rel=0, abs=0, nan_ok=True)
        assert row["lr"] == given["lr"] and row["skipped"] == given["skipped"]
        assert row["epoch/usage"] == given.get("epoch/usage")
    assert trial.segments()[-1] == f"{21:08d}-{23:08d}"


def test_any_reader_of_parquet_reads_the_folder_of_a_complete_history_as_one_table(tmp_path):
    trial = Trial(tmp_path)
    trial.train(0, 9, end=9)
    rows = trial.curve(9)
    read = pq.read_table(tmp_path / FOLDER)
    assert read.schema.equals(rows.schema) and read.schema.field("step").type == pa.int64()
    for name in rows.column_names:
        np.testing.assert_array_equal(read[name].to_numpy(), rows[name].to_numpy())


@pytest.mark.parametrize(
    ("log_every", "stop", "steps"),
    [(1, 3, [1, 2, 3]), (5, 23, [5, 10, 15, 20, 23]), (10, 23, [10, 20, 23]), (99, 23, [23])],
)
@pytest.mark.parametrize("cut", [None, 2])
def test_a_row_holds_the_means_of_its_interval(tmp_path, log_every, stop, steps, cut):
    trial = Trial(tmp_path, log_every)
    if cut is not None:
        trial.train(0, cut, end=stop)
    trial.train(cut or 0, stop, end=stop)
    rows = trial.curve(stop).to_pylist()
    assert [row["step"] for row in rows] == steps
    for first, row in zip([0, *steps], rows, strict=False):
        given = [metrics(step) for step in range(first + 1, row["step"] + 1)]
        finite = [each["loss"] for each in given if math.isfinite(each["loss"])]
        assert row["loss"] == pytest.approx(np.mean(finite), rel=1e-12)
        assert row["lr"] == given[-1]["lr"]
        assert row["skipped"] == sum(each["skipped"] for each in given)


def test_a_value_that_is_not_finite_in_the_whole_interval_is_kept(tmp_path):
    history = History(Store(tmp_path), 2)
    history.add({"loss": math.nan, "grad_norm": math.inf, "skipped": 1.0}, is_last=False)
    row = history.add({"loss": math.nan, "grad_norm": math.inf, "skipped": 1.0}, is_last=False)
    assert row is not None
    assert math.isnan(row["loss"]) and row["grad_norm"] == math.inf and row["skipped"] == 2
    assert history.num_skipped == history.num_skipped_last == 2
    history.add({"loss": 1.0, "skipped": 0.0}, is_last=False)
    assert (history.num_skipped, history.num_skipped_last) == (2, 0)


def test_segments_of_an_abandoned_attempt_do_not_count(tmp_path):
    trial = Trial(tmp_path)
    trial.train(0, 6, end=18)
    trial.train(6, 18, end=18)
    trial.train(6, 11, end=18, factor=2)
    assert trial.segments() == [f"{1:08d}-{4:08d}", f"{5:08d}-{8:08d}"]
    losses = trial.curve(11)["loss"].to_pylist()
    assert losses[:6] == [5 / step for step in range(1, 7)]
    assert losses[7:] == [10 / step for step in range(8, 12)]


def test_other_workers_count_skipped_steps_and_write_nothing(tmp_path):
    Trial(tmp_path).train(0, 9, end=20)
    history = History(None, 1)
    history.restore(tmp_path / "step_9")
    assert (history.step, history.num_skipped, history.num_skipped_last) == (9, 1, 0)
    assert history.add({"skipped": 1.0}, is_last=True) is None
    assert (history.step, history.num_skipped, history.num_skipped_last) == (10, 2, 1)
    assert len(list((tmp_path / FOLDER).iterdir())) == 2


@pytest.mark.parametrize("damage", ["missing", "another content"])
def test_a_lost_segment_leaves_a_gap_and_is_named(tmp_path, damage):
    trial = Trial(tmp_path)
    trial.train(0, 14, end=14)
    (path,) = (tmp_path / FOLDER).glob("00000005-*")
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    said: list[str] = []
    curve = read_curve(trial.folder, Store(trial.checkpoint(14)), said.append)
    (line,) = said
    assert line.startswith("metrics of steps 5-8 are lost") and damage in line and path.name in line
    steps = pa.concat_tables(curve.tables(), promote_options="default")["step"].to_pylist()
    assert steps == [*range(1, 5), *range(9, 15)]


def test_a_figure_gets_as_many_points_as_it_asks_for(tmp_path):
    trial = Trial(tmp_path, segment_rows=100)
    trial.train(0, 1000, end=1000)
    curve = read_curve(trial.folder, Store(trial.checkpoint(1000)), pytest.fail)
    steps, losses = curve.points(10)["loss"]
    assert steps[1:] == [150.5 + 100 * i for i in range(9)] and len(losses) == 10
    assert losses[9] == pytest.approx(np.mean([5 / step for step in range(901, 1001)]))
    steps, losses = curve.points(2000)["loss"]
    assert steps == [step for step in range(1, 1001) if step != 7]
    assert losses == [5 / step for step in steps]
    steps, _ = curve.points(2000)["epoch/usage"]
    assert steps == list(range(10, 1001, 10))


@pytest.mark.slow
def test_a_million_steps_take_little_memory_and_small_checkpoints(tmp_path, monkeypatch):
    """Each checkpoint writes the rows since the last segment and one line for each segment."""
    writes: list[int] = []
    write = Store.write_bytes

    def counted(self, path, data):
        writes.append(len(data))
        write(self, path, data)

    monkeypatch.setattr(Store, "write_bytes", counted)
    history = History(Store(tmp_path), 1)
    row = {f"metric/{i}": 0.0 for i in range(12)} | {"lr": 0.1, "skipped": 0.0}
    random = np.random.default_rng(0)
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    history.write(checkpoint)
    memory, base = psutil.Process().memory_info, psutil.Process().memory_info().rss
    used = sizes = 0
    for _ in range(1000):
        for values in random.random((1000, 12), np.float32).astype(float).tolist():
            row |= {f"metric/{i}": value for i, value in enumerate(values)}
            history.add(row, is_last=history.step == 999_999)
        history.write(checkpoint)
        used = max(used, memory().rss - base)
        found = [(checkpoint / name).stat().st_size for name in (INDEX_FILE, TAIL_FILE)]
        sizes = max(sizes, sum(found))
    assert used < 100 << 20
    assert sizes < 2 << 20
    assert len(writes) == 200 and max(writes) < 1 << 20
    curve = read_curve(Store(tmp_path), Store(checkpoint), pytest.fail)
    assert sum(table.num_rows for table in curve.tables()) == 1_000_000
    assert len(curve.points()["metric/0"][0]) == 2000
    assert memory().rss - base < 100 << 20
