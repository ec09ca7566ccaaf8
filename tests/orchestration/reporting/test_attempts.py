"""What became of an attempt: state, message without traceback, and the line of a complete stage."""

import subprocess
import sys
import traceback

import pyarrow as pa
import pytest

from orchestration.errors import StageError
from orchestration.reporting.attempts import (
    error_words,
    read_attempt,
    without_tracebacks,
    write_attempt,
)
from orchestration.reporting.progress import read_heartbeat, write_heartbeat
from orchestration.reporting.results import result_line
from orchestration.slices import Output
from orchestration.storage.lock import take, workdir_lock
from orchestration.storage.store import Store
from tests.committing import commit_outputs, commit_tables


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("x"), "KeyError: 'x'"),
        (AssertionError(), "AssertionError"),
        (ValueError("7 is odd"), "ValueError: 7 is odd"),
        (StageError("a sentence for the user"), "a sentence for the user"),
        (ValueError("caf\udce9.jpg: \x1b[31mred"), r"ValueError: caf\udce9.jpg: \x1b[31mred"),
        (
            ExceptionGroup("two workers", [ValueError("7"), StageError("in words")]),
            "ExceptionGroup: two workers: ValueError: 7; in words",
        ),
    ],
)
def test_a_message_names_the_type_unless_it_was_written_for_the_user(error, words):
    assert error_words(error) == words


def test_a_message_never_holds_a_complete_recipe():
    assert len(error_words(ValueError("x" * 70_000))) < 2100


def test_any_message_is_recorded(tmp_path):
    for message in ("caf\udce9.jpg", "nul \0", "Hünde\n犬"):
        write_attempt(Store(tmp_path).sub("stage"), "failed", message)
        assert read_attempt(Store(tmp_path), Store(tmp_path).sub("stage")).error == message


@pytest.mark.parametrize("record", [b"", b"{", b"[]", b"\xff", b'{"state": "failed", "other": 1}'])
def test_a_damaged_record_of_an_attempt_is_none(tmp_path, record):
    (tmp_path / "attempt.json").write_bytes(record)
    assert read_attempt(Store(tmp_path), Store(tmp_path)) is None


def test_a_damaged_heartbeat_is_none(tmp_path):
    (tmp_path / "progress.json").write_bytes(b"")
    assert read_heartbeat(Store(tmp_path)) is None


def chained(kind: str) -> str:
    """Return what Python prints for an error with an earlier one."""
    try:
        try:
            {}["first"]
        except KeyError as error:
            if kind == "direct":
                raise ValueError("second") from error
            raise ValueError("second")  # noqa: B904
    except ValueError:
        return traceback.format_exc()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (chained("direct"), "ValueError: second"),
        (chained("during"), "ValueError: second"),
        (f"slice 7, 3 attempts: {chained('direct')}", "ValueError: second"),
        ("no traceback\nat all", "no traceback\nat all"),
    ],
)
def test_a_traceback_is_replaced_by_the_exception(text, words):
    assert words in without_tracebacks(text) and "File" not in without_tracebacks(text)


def test_status_tells_running_from_failed_from_killed(tmp_path):
    store = Store(tmp_path)
    folder = store.sub("stage/f")
    assert read_attempt(store, folder) is None
    write_attempt(folder, "running")
    assert read_attempt(store, folder).state == "interrupted"  # nobody holds the lock
    with workdir_lock(store):
        assert read_attempt(store, folder).state == "interrupted"  # another driver, later
        write_attempt(folder, "running")
        assert read_attempt(store, folder).state == "running"
        write_attempt(folder, "failed", "stage: no images")
    assert read_attempt(store, folder).state == "failed"
    assert read_attempt(store, folder).error == "stage: no images"


def test_a_driver_that_was_killed_runs_no_more(tmp_path):
    store = Store(tmp_path)
    program = (
        "import os, sys; from orchestration.storage.lock import take\n"
        "from orchestration.storage.store import Store\n"
        "from orchestration.reporting.attempts import write_attempt\n"
        "store = Store(sys.argv[1]); take(store); write_attempt(store.sub('a/f'), 'running')\n"
        "os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert store.exists("lock.json")
    assert read_attempt(store, store.sub("a/f")).state == "interrupted"
    take(store).release()


def rejects(*reasons: str) -> pa.Table:
    return pa.table({"reason": pa.array(reasons, pa.string())})


def test_the_line_of_a_stage_shows_its_most_frequent_rejects(tmp_path):
    out = Output(5, {"data": pa.table({"a": [1]}), "rejects": rejects("b", "a", "b", "b")})
    folder = Store(tmp_path)
    manifest = commit_outputs(folder, [out]).manifest
    line = result_line("download/x", folder, manifest, 2.0)
    assert "✓" in line and "5 rows in, 1 out, 4 rejects (b 3, a 1)" in line


def test_remarks_on_a_stage_follow_its_line(tmp_path):
    folder = Store(tmp_path)
    manifest = commit_outputs(folder, [Output(1, {"data": pa.table({"a": [1]})})]).manifest
    line, *remarks = result_line("curate", folder, manifest, 2.0, ["one [x]", "two"]).split("\n")
    assert "✓" in line and [remark.rpartition("curate: ")[2] for remark in remarks] == [
        r"one \[x]", "two",
    ]  # fmt: skip


def test_a_stage_that_gives_nothing_is_not_a_success(tmp_path):
    out = Output(
        2, {"data": pa.table({"a": pa.array([], pa.int64())}), "rejects": rejects("b", "b")}
    )
    folder = Store(tmp_path)
    line = result_line("index/x", folder, commit_outputs(folder, [out]).manifest, 2.0)
    assert "no rows" in line and "✓" not in line and "b 2" in line


def test_a_stage_of_a_stream_that_is_not_trained_on_is_no_warning(tmp_path):
    folder = Store(tmp_path)
    nothing = Output(0, {"train": pa.table({"a": pa.array([], pa.int64())})})
    line = result_line("text_tokens", folder, commit_outputs(folder, [nothing]).manifest, 2.0)
    assert "✓" in line and "0 rows in, 0 out" in line


def test_the_line_of_a_training_shows_steps_losses_and_checkpoint(tmp_path):
    folder = Store(tmp_path)
    files = {"ray_train/step_00000400/a": b"", "ray_train/step_00000450/a": b""}
    manifest = commit_tables(folder, [], row_group_rows=1, files=files).manifest
    write_heartbeat(folder, 450, 450, "steps", "loss/mlm 1.2")
    line = result_line("pretrain", folder, manifest, 2.0)
    assert "450 steps, loss/mlm 1.2, checkpoint step_00000450" in line and "0 rows" not in line
