"""A text tokenizer whose driver is killed in its rounds ends with the bytes of an undisturbed run.

Real processes are killed with SIGKILL; the rerun must not repeat a committed slice.
"""

from functools import partial

import pytest

from tests.killed_stage import KilledStage

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

ROUNDS = ("count-documents", "lines-0-captions")
"Beginnings of the slice ids after whose first part the driver is killed."


def test_a_text_tokenizer_that_is_killed_ends_as_an_undisturbed_one(tmp_path):
    runs = partial(KilledStage, "tests.pipelines.tokens.drawing", "text_tokenizer")
    calm, killed = runs(tmp_path / "calm"), runs(tmp_path / "killed")
    calm.finish()
    kept: dict[str, int] = {}
    for of_round in ROUNDS:
        killed.kill_in(of_round)
        now = killed.parts()
        assert kept.items() <= now.items(), "a committed slice was repeated"
        kept = now
    assert any(name.startswith("count") for name in kept)
    killed.finish()
    assert killed.output() == calm.output()
    assert not killed.parts()
