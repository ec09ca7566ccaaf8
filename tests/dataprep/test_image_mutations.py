"""Damaged image files of every kind end as a whole stored image or as one reject."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.dataprep.image_mutations import EDITS, SEEDS, Edit, check, damaged

FRACTIONS = st.floats(0, 1, exclude_max=True)
DAMAGE = st.builds(
    Edit,
    st.sampled_from(EDITS),
    st.one_of(FRACTIONS, FRACTIONS.map(lambda at: at**4)),  # headers are hit more often
    st.integers(1, 400),
    st.integers(0, (1 << 32) - 1),
)


@pytest.mark.parametrize("name", SEEDS)
def test_an_undamaged_file_is_stored(name):
    assert check(SEEDS[name]) == "stored"


@given(st.sampled_from(sorted(SEEDS)), st.lists(DAMAGE, min_size=1, max_size=4), st.booleans())
@settings(max_examples=400)
def test_a_damaged_file_is_stored_whole_or_rejected_for_a_known_reason(name, edits, repair):
    check(damaged(SEEDS[name], edits, repair))


def try_many(number: int, folder) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "tests.dataprep.image_mutations", str(number), "0"]
    found = subprocess.run([*command, str(folder / "seed")], capture_output=True, text=True)
    message = f"seed {(folder / 'seed').read_text()}: {found.stderr[-2000:]}"
    assert found.returncode == 0, message
    return found


@pytest.mark.slow
def test_damaged_files_neither_crash_nor_fill_memory(tmp_path):
    assert "stored" in try_many(2000, tmp_path).stdout


@pytest.mark.exhaustive
def test_a_hundred_thousand_damaged_files_neither_crash_nor_fill_memory(tmp_path):
    sys.stdout.write(try_many(100_000, tmp_path).stdout)
