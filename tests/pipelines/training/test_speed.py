"""Speed of a training, with a clock that the test sets."""

from collections.abc import Iterator

import pyarrow as pa
import pytest
import torch

from model.training.device_rates import DevicePeak
from model.training.useful_work import Work
from orchestration.storage.store import Store
from orchestration.training_messages import Messages
from pipelines.training import speed
from pipelines.training.history import read_curve
from pipelines.training.loop import train
from pipelines.training.speed import SpeedMeter, largest_memory
from tests.line_training import LineJob, params
from tests.one_worker import OneWorker, last_checkpoint


class Clock:
    """A clock that moves when it is asked to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Said(Messages):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(None)
        self.warnings: list[str] = []
        self.tags: dict[str, str] = {}

    def tag(self, name: str, value: str) -> None:
        self.tags[name] = value

    def warn(self, name: str, words: str) -> None:
        self.warnings.append(words)


@pytest.fixture
def session(tmp_path, monkeypatch) -> OneWorker:
    made = OneWorker(tmp_path)
    made.messages = Said()
    monkeypatch.setattr(
        speed, "device_peak", lambda device, dtype: DevicePeak("NVIDIA X", 1000.0, "bf16", True)
    )
    return made


def steps(meter: SpeedMeter, clock: Clock, number: int, wait: float, work: float) -> None:
    """Take steps that wait and then work for some seconds."""

    def batches() -> Iterator[int]:
        for i in range(number):
            clock.now += wait
            yield i

    for _ in meter.waiting_for(batches()):
        clock.now += work
        meter.add(Work(num_samples=6, num_tokens=60, flops=100.0))


def test_rates_are_those_of_the_steps_after_the_first_without_the_saving_of_checkpoints(session):
    clock = Clock()
    meter = SpeedMeter(session, torch.bfloat16, clock)
    steps(meter, clock, 1, wait=50, work=90)
    assert meter.take(1, lambda _: "") == {} and meter.words == ""
    steps(meter, clock, 4, wait=0.1, work=0.4)
    with meter.paused():
        clock.now += 1000
    found = meter.take(5, lambda _: "")
    assert found["speed/step_s"] == pytest.approx(0.5)
    assert found["speed/samples_per_s"] == pytest.approx(12)
    assert found["speed/tokens_per_s"] == pytest.approx(120)
    assert found["speed/mfu"] == pytest.approx(100 / 0.5 / 1000)
    assert found["speed/data_wait_fraction"] == pytest.approx(0.2)
    assert found["memory/host_bytes"] > 1e7
    assert meter.words == "12 samples/s, MFU 20%, waits 20%"
    assert session.messages.tags["device"] == "NVIDIA X"
    assert session.messages.tags["device_peak"].endswith("dense peak of the data sheet")


def test_an_evaluation_within_a_step_is_no_time_of_training(session):
    clock = Clock()
    meter = SpeedMeter(session, torch.bfloat16, clock)
    steps(meter, clock, 3, wait=1.0, work=3.0)
    clock.now += 500.0
    meter.leave_out(500.0)
    assert meter.take(3, str)["speed/step_s"] == pytest.approx(4.0)


def test_a_fraction_of_a_measured_rate_is_not_called_mfu(session, monkeypatch):
    monkeypatch.setattr(
        speed, "device_peak", lambda device, dtype: DevicePeak("cpu", 1000.0, "fp32", False)
    )
    clock = Clock()
    meter = SpeedMeter(session, torch.float32, clock)
    steps(meter, clock, 2, wait=0, work=0.5)
    found = meter.take(2, lambda _: "")
    assert found["speed/measured_peak_fraction"] == pytest.approx(0.2)
    assert "speed/mfu" not in found and "20% of the matmul rate" in meter.words


@pytest.mark.parametrize(("wait", "num_warnings"), [(0.02, 0), (0.1, 2)])
def test_waiting_is_warned_of_once_in_a_while_with_what_shortens_it(session, wait, num_warnings):
    clock = Clock()
    meter = SpeedMeter(session, torch.bfloat16, clock)
    asked = []
    for step in range(1, 1101):
        steps(meter, clock, 1, wait=wait, work=1 - wait)
        meter.take(step, lambda seconds: asked.append(seconds) or "raise it")
    assert asked and all(60 <= seconds < 62 for seconds in asked)
    assert len(session.messages.warnings) == num_warnings
    if num_warnings:
        assert session.messages.warnings[0] == (
            "steps up to 61 wait for data in 10% of their time: raise it"
        )


def test_a_training_logs_its_speed_but_keeps_it_out_of_its_history(tmp_path):
    session = OneWorker(tmp_path)
    train(session, LineJob(params()))
    rows = [row for row in session.rows if "speed/samples_per_s" in row]
    assert [row["step"] for row in rows] == list(range(2, 41))
    assert [row["step"] for row in session.rows if "memory/largest_host_bytes" in row] == [
        15, 30, 40,
    ]  # fmt: skip
    tables = read_curve(Store(tmp_path), last_checkpoint(tmp_path), print).tables()
    assert pa.concat_tables(tables).column_names == ["step", "loss", "lr", "skipped"]


def test_the_largest_memory_of_one_worker_is_its_own():
    found = largest_memory(torch.device("cpu"))
    assert found.keys() == {"memory/largest_host_bytes"}
