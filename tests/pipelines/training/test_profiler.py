"""Traces of a training's steps, read as the JSON that Chrome and Perfetto read."""

import gzip
import json
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from orchestration.errors import RecipeError
from orchestration.reporting.progress import write_heartbeat
from orchestration.storage.store import Store
from pipelines.commands import profile
from pipelines.training import profiler
from pipelines.training.loop import train
from pipelines.training.profiler import FOLDER, REQUEST, StepProfiler
from tests.line_training import LineJob, params
from tests.one_worker import OneWorker


def traces(folder: Path) -> dict[str, set[str]]:
    """Names of the events of each trace in a stage's folder."""
    return {
        path.name: {
            event.get("name", "") for event in json.loads(gzip.open(path).read())["traceEvents"]
        }
        for path in sorted((folder / FOLDER).glob("*"))
    }


def test_the_steps_that_the_recipe_names_are_traced_and_change_nothing(tmp_path):
    weights = []
    for name, steps in (("plain", None), ("traced", [5, 7])):
        train(OneWorker(tmp_path / name), LineJob(params(profile_steps=steps)))
        (weight,) = (tmp_path / name / "ray_train/step_00000040").glob("weight.json")
        weights.append(weight.read_text())
    assert weights[0] == weights[1]
    assert not traces(tmp_path / "plain")
    ((name, events),) = traces(tmp_path / "traced").items()
    assert name == "steps-00000005-00000007.json.gz"
    assert "aten::linear" in events


def test_a_trace_is_made_on_request_once_and_ends_with_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(profiler, "_LOOK_EVERY_S", 0.0)
    session = OneWorker(tmp_path)
    session.folder.write_bytes(REQUEST, b'{"steps": 1000}')
    train(session, LineJob(params()))
    ((name, _),) = traces(tmp_path).items()
    first, last = (int(part) for part in name.split(".")[0].split("-")[1:])
    assert last - first + 1 <= 20
    assert not session.folder.exists(REQUEST)


def test_two_threads_that_look_at_the_same_time_find_one_request(tmp_path, monkeypatch):
    monkeypatch.setattr(profiler, "_LOOK_EVERY_S", 0.0)
    session = OneWorker(tmp_path)
    read = session.folder.read
    number_of_reads = []

    def slow_read(path):
        number_of_reads.append(path)
        second.start()  # looks while this thread is between reading and removing
        second.join()
        return read(path)

    monkeypatch.setattr(session.folder, "read", slow_read)
    session.folder.write_bytes(REQUEST, b'{"steps": 2}')
    made = StepProfiler(session, None)
    second = threading.Thread(target=made.look)
    made.look()
    assert number_of_reads == [REQUEST]
    assert not session.folder.exists(REQUEST)


@pytest.mark.parametrize("ended", [{"must_stop_after": 6}, {"stop_after": 6, "save_after": [6]}])
def test_a_training_that_is_stopped_or_ends_in_an_error_writes_the_steps_until_then(
    tmp_path, ended
):
    with nullcontext() if "must_stop_after" in ended else pytest.raises(KeyboardInterrupt):
        train(OneWorker(tmp_path, **ended), LineJob(params(profile_steps=[5, 9])))
    ((name, events),) = traces(tmp_path).items()
    assert name == "steps-00000005-00000006.json.gz"
    assert "aten::linear" in events


def test_a_step_that_fails_as_the_first_of_a_trace_leaves_none(tmp_path):
    made = StepProfiler(OneWorker(tmp_path), (5, 9))
    made.after(4)
    made.before(5)
    made.close()
    assert not traces(tmp_path)
    made.before(5)  # no profiler runs any longer, so another one can start
    made.after(5)
    made.close()
    assert list(traces(tmp_path)) == ["steps-00000005-00000005.json.gz"]


@pytest.mark.parametrize("request_", [b"", b"[]", b'{"steps": "many"}'])
def test_a_request_that_cannot_be_read_is_left_out(tmp_path, monkeypatch, request_):
    monkeypatch.setattr(profiler, "_LOOK_EVERY_S", 0.0)
    session = OneWorker(tmp_path)
    session.folder.write_bytes(REQUEST, request_)
    made = StepProfiler(session, None)
    made.look()
    assert not session.folder.exists(REQUEST)
    made.before(1)
    made.after(1)
    made.close()
    assert not traces(tmp_path)


@pytest.mark.parametrize("steps", [[0, 3], [5, 4], [1, 21]])
def test_a_range_that_is_none_or_too_long_is_refused(steps):
    with pytest.raises(ValueError, match="is no range of 1 to 20 steps"):
        params(profile_steps=steps)


def test_only_a_training_that_runs_is_asked(tmp_path, monkeypatch):
    store = Store(tmp_path)
    record = {"stages": {"curate": "a", "pretrain": "b", "image_tokenizer": "c"}}
    monkeypatch.setattr(profile, "last_record", lambda store: record)
    write_heartbeat(store.sub("curate/a"), 3, 9, "rows", "")
    write_heartbeat(store.sub("image_tokenizer/c"), 9, 9, "steps", "")
    with pytest.raises(RecipeError, match="no training runs here at present"):
        profile.running_trainings(store)
    write_heartbeat(store.sub("pretrain/b"), 3, 9, "steps", "")
    assert list(profile.running_trainings(store)) == ["pretrain"]
    profile.profile(str(tmp_path), steps=4)
    assert json.loads(store.sub("pretrain/b").read(REQUEST)) == {"steps": 4}
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 1000)
    with pytest.raises(RecipeError, match="no training runs here at present"):
        profile.running_trainings(store)
