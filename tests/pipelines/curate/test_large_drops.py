"""A rule that drops much of a source is said when curation ends."""

from types import SimpleNamespace

import pyarrow as pa

from dataprep.schemas import reject, rejects_table
from orchestration import Output
from orchestration.storage.store import Store
from pipelines.curate.large_drops import report_large_drops
from tests.committing import commit_outputs, commit_tables


def test_large_drops_are_remarks_on_the_stage_and_warnings_in_the_log(tmp_path, caplog):
    rejects = [reject(f"own/{i}", "own", "caption_length", "") for i in range(3)]
    rejects.append(reject("more/0", "more", "aspect", ""))
    folder = Store(tmp_path).sub("curate")
    commit_outputs(folder, [Output(4, {"rejects": rejects_table(rejects)})])
    datasets = {
        "pairs": commit_tables(Store(tmp_path).sub("own"), [pa.table({"a": range(20)})],
                               row_group_rows=8),
        "images": commit_tables(Store(tmp_path).sub("more"), [pa.table({"a": range(10)})],
                                row_group_rows=8),
    }  # fmt: skip
    remarks: list[str] = []
    inputs = {"pairs": ("download/own",), "images": ("import/more",), "evaluation_sets": ()}
    context = SimpleNamespace(
        folder=folder,
        stage=SimpleNamespace(name="curate", inputs=inputs),
        inputs=lambda role: [datasets[role]],
        progress=SimpleNamespace(remark=remarks.append),
    )
    report_large_drops(context)
    assert remarks == [
        "caption_length dropped 15.0% of own (3 images); "
        "see curate.min_caption_words, curate.max_caption_words"
    ]
    assert [record.message for record in caplog.records] == [f"curate: {remarks[0]}"]
