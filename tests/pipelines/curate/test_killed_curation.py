"""Curation whose driver is killed in its rounds ends with the bytes of an undisturbed run.

Real processes are killed with SIGKILL; the rerun must not repeat a committed slice.
"""

from functools import partial

import pytest

from tests.killed_stage import KilledStage

pytestmark = pytest.mark.slow

SOME = ("features", "edges", "0000")
"Beginnings of the slice ids of rounds after whose first part the driver is killed."
ALL = ("features", "equal", "leaders", "hash-pairs", "candidates", "edges", "resolve", "captions")


@pytest.mark.exhaustive
@pytest.mark.parametrize("rounds", [SOME, ALL])
def test_a_curation_that_is_killed_ends_as_an_undisturbed_one(tmp_path, rounds):
    runs = partial(KilledStage, "tests.pipelines.curate.curating", "curate")
    calm, killed = runs(tmp_path / "calm"), runs(tmp_path / "killed")
    calm.finish()
    for of_round in rounds:
        killed.kill_in(of_round)
    before = killed.parts("0000")
    killed.finish()
    after = killed.parts("0000")
    assert bool(before) == ("0000" in rounds)
    assert before == {name: after[name] for name in before}
    assert killed.output() == calm.output()
