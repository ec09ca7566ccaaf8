"""What is said of a feed that is too slow."""

import pytest

from pipelines.pretrain.feed_use import FeedUse


class Clock:
    """A clock that moves when it is asked to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(
    ("build_s", "read_s", "lighter", "said"),
    [
        (190, 10, ["train.color_jitter=0"], "2 threads that build samples are busy in 95%"),
        (190, 10, ["train.color_jitter=0"], "train.cpus_per_worker or set train.color_jitter=0"),
        (190, 10, [], "raise train.cpus_per_worker"),
        (190, 90, [], "raise train.cpus_per_worker"),
        (40, 60, [], "row groups arrive late (waited for in 60% of the time)"),
    ],
)
def test_busy_threads_need_cores_and_late_reads_a_faster_store(build_s, read_s, lighter, said):
    clock = Clock()
    use = FeedUse(2, clock)
    for _ in range(2):
        assert use.building(lambda seconds: clock.move(seconds) or "built", build_s / 2) == "built"
    with use.reading():
        clock.move(read_s)
    assert said in use.remedy(100, lighter)
    assert "busy in 0%" in use.remedy(100, lighter)
