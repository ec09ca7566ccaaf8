"""A damaged record of an output is named in one sentence, whichever program damaged it."""

import pytest

from orchestration.branches import BRANCHES, Branch, read_branches, write_branches
from orchestration.errors import ManifestError
from orchestration.generations import GENERATIONS, commit_manifest, content_id
from orchestration.retries import INTENT, ROUNDS, _declare, run_with_rounds
from orchestration.storage.store import Store


class WithRounds:
    """As much of a stage and its context as repeated rounds need."""

    def __init__(self, folder):
        self.folder, self.stage, self.manifest_name = folder, self, ""

    def run(self, context):
        pass

    def retry(self, context, patterns):
        raise AssertionError("no round is repeated")


READERS = {
    GENERATIONS: content_id,
    BRANCHES: read_branches,
    ROUNDS: lambda folder: run_with_rounds(WithRounds(folder)),
    INTENT: lambda folder: _declare(folder, 1, ["timeout"]),
}


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"[1", b"null", b"7", b'"text"', b"[[[[", b"[1]"]
)
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_record_is_named_with_what_to_do(store, name, content):
    store.write_bytes(name, content)
    with pytest.raises(ManifestError) as error:
        READERS[name](store)
    words = str(error.value)
    assert words.startswith(f"{store.uri_of(name)} is damaged: it is no JSON ")
    assert words.endswith("; remove this file, or restore it") and "\n" not in words


@pytest.mark.parametrize(
    "entry",
    ["{}", '{"from_step": "3", "skip_steps": 1}', '{"from_step": 3, "skip_steps": 1, "x": 1}'],
)
def test_a_branch_with_other_keys_or_types_is_damaged(tmp_path, entry):
    store = Store(tmp_path)
    store.write_bytes(BRANCHES, f"[{entry}]".encode())
    with pytest.raises(ManifestError, match="list of objects with from_step, skip_steps"):
        read_branches(store)


def test_whole_records_are_read(store):
    branches = (Branch(3, 1), Branch(2, 0))
    write_branches(store, branches)
    assert read_branches(store) == branches
    commit_manifest(store, b"{}")
    assert content_id(store) == store.name
