"""What a download of the miniature web's CC3M must have given, however it was disturbed."""

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from orchestration import Dataset
from orchestration.plan import latest_record
from orchestration.storage.store import Store


def check_that_every_row_ended_once(workdir: Path) -> None:
    """Compare the rows and rejects of the download with its index and with the truth."""
    stages = latest_record(Store(workdir))["stages"]
    index, images = (
        Dataset.open(Store(workdir / name / stages[name]))
        for name in ("index/cc3m", "download/cc3m")
    )
    rows = images.read(columns=["sample_id"])["sample_id"].to_pylist()
    rejects = images.table("rejects").read().to_pylist()
    ended = Counter(rows + [row["sample_id"] for row in rejects])
    assert set(ended) == set(index.read(columns=["sample_id"])["sample_id"].to_pylist())
    assert set(ended.values()) == {1}
    truth = pq.read_table(workdir / "miniweb" / "truth.parquet").to_pylist()
    outcomes = {row["sample_id"]: row["outcome"] for row in truth}
    assert {outcomes[name] for name in rows} == {"ok"}
    assert [row["reason"] for row in rejects] == [outcomes[row["sample_id"]] for row in rejects]
