"""The expected outcome of every row of the miniature web.

    truth.parquet       one row per image: source, sample_id, outcome (``ok`` or the reason),
                        placeholder, caption (the first of several), width and height (of the
                        upright original; null if there is none), copy_of (sample_id of the
                        image that this one is a copy of), copy_kind
    text_truth.parquet  one row per document: source, doc_id, outcome, text (cleaned; null unless
                        the outcome is ``ok``)
    task_truth.parquet  one row per example of a downstream task, if any are drawn: task, split (as
                        the files name it), example_id, outcome, images (paths in the web's
                        folder), texts (as written, without empty ones; also captions that
                        NoCaps's test split hides), label (also of test splits that
                        hide theirs; of NoCaps the domain; empty for captions in
                        Karpathy's form and ``no_labels``)

Wikipedia pages that are not articles have no row. COCO's val and test images have none, because no
training reads them; ``copy_of`` names them ``coco_eval/<cocoid>``.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from dataprep.miniweb.drawn_images import DrawnImage

TRUTH: Final = "truth.parquet"
TEXT_TRUTH: Final = "text_truth.parquet"
TASK_TRUTH: Final = "task_truth.parquet"

_ROWS: Final = pa.schema(
    [
        ("source", pa.string()),
        ("sample_id", pa.string()),
        ("outcome", pa.string()),
        ("placeholder", pa.bool_()),
        ("caption", pa.string()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("copy_of", pa.string()),
        ("copy_kind", pa.string()),
    ]
)
_TEXTS: Final = pa.schema([(n, pa.string()) for n in ("source", "doc_id", "outcome", "text")])

_TASKS: Final = pa.schema(
    [
        ("task", pa.string()),
        ("split", pa.string()),
        ("example_id", pa.string()),
        ("outcome", pa.string()),
        ("images", pa.list_(pa.string())),
        ("texts", pa.list_(pa.string())),
        ("label", pa.string()),
    ]
)


@dataclass(frozen=True)
class Row:
    """The expected outcome of an image."""

    source: str
    sample_id: str
    outcome: str
    caption: str
    width: int | None
    height: int | None
    placeholder: bool = False
    copy_of: str | None = None
    copy_kind: str | None = None


@dataclass(frozen=True)
class TextRow:
    """The expected outcome of a document."""

    source: str
    doc_id: str
    outcome: str
    text: str | None


@dataclass(frozen=True)
class TaskRow:
    """The expected outcome of an example of a downstream task."""

    task: str
    split: str
    example_id: str
    outcome: str
    images: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    label: str = ""


@dataclass
class Written:
    """The result of a writer of images."""

    rows: list[Row] = field(default_factory=list)
    originals: dict[str, DrawnImage] = field(default_factory=dict)
    "Images with outcome ``ok`` by sample_id, which other sources may copy."


def write_truth(
    folder: Path, rows: Sequence[Row], texts: Sequence[TextRow], tasks: Sequence[TaskRow]
) -> None:
    """Write the tables; that of the tasks only if it has rows."""
    tables: list[tuple[str, Sequence[Any], pa.Schema]] = [
        (TRUTH, rows, _ROWS),
        (TEXT_TRUTH, texts, _TEXTS),
    ]
    if tasks:
        tables.append((TASK_TRUTH, tasks, _TASKS))
    for name, entries, schema in tables:
        pq.write_table(pa.Table.from_pylist([*map(asdict, entries)], schema), folder / name)
