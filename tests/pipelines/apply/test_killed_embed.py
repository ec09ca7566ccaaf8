"""An ``embed`` whose driver is killed with SIGKILL continues, and ends with the same dataset."""

from pathlib import Path

import pytest

from orchestration import Dataset
from orchestration.storage.store import Store
from tests.killed_stage import KilledStage
from tests.pipelines.apply import drawn
from tests.pipelines.apply.committed import run
from tests.pipelines.apply.embedding import recipe
from tests.pipelines.inference.models import builder_of, fine_tuned

pytestmark = pytest.mark.slow
NUM_IMAGES = 60


def test_a_killed_embed_continues_with_the_missing_slices(tmp_path: Path):
    fine_tuned(tmp_path / "retrieval" / "export", builder_of("retrieval"))
    drawn.write_images(tmp_path / "images", NUM_IMAGES)
    for name, (content, _) in drawn.BAD_FILES.items():
        (tmp_path / "images" / name).write_bytes(content)
    killed = KilledStage("tests.pipelines.apply.embedding", "embed", tmp_path / "killed")
    killed.kill_in("")
    before = killed.parts()
    assert 0 < len(before) < NUM_IMAGES // 2
    killed.finish()
    after = killed.parts()
    assert before == {name: after[name] for name in before}

    calm = run(recipe(tmp_path), tmp_path / "calm")
    (folder,) = (tmp_path / "killed" / "embed").iterdir()
    found = Dataset.open(Store(folder))
    assert found.read().equals(calm.read())
    assert found.table("rejects").read().equals(calm.table("rejects").read())
    assert found.num_rows == NUM_IMAGES + 2
