"""Steps and evaluations that the parameters stand for."""

import pytest

from pipelines.finetune.params import FinetuneParams


@pytest.mark.parametrize("steps", [1, 3, 10, 19, 100, 999, 1000])
@pytest.mark.parametrize("evaluations", [1, 3, 10, 30])
def test_the_dev_split_is_evaluated_as_often_as_named_at_equal_distances(steps, evaluations):
    params = FinetuneParams(steps=steps, evaluations=evaluations)
    found = [step for step in range(1, steps + 1) if params.is_evaluated_after(step)]
    assert len(found) == min(evaluations, steps) and found[-1] == steps
    distances = {after - before for before, after in zip([0, *found], found, strict=False)}
    assert max(distances) - min(distances) <= 1


@pytest.mark.parametrize(
    ("epochs", "warmup", "samples", "expected"),
    [
        (10, 1, 1280, (100, 10)),
        (0.5, 0.25, 256, (1, 0)),
        (0.001, 0, 128, (1, 0)),
        (0, 1, 64, (0, 0)),
    ],
)
def test_epochs_are_counted_in_steps_of_the_global_batch(epochs, warmup, samples, expected):
    params = FinetuneParams(epochs=epochs, warmup_epochs=warmup).in_steps(samples)
    assert (params.steps, params.warmup_steps) == expected


def test_steps_that_are_given_hold():
    params = FinetuneParams(steps=7, warmup_steps=2).in_steps(10**6)
    assert (params.steps, params.warmup_steps) == (7, 2)
