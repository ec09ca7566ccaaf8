"""What must become of every row of the miniature web.

    truth.parquet       images, a row each: source, sample_id, outcome (``ok`` or the reason),
                        placeholder, caption (the first of several), width and height (of the
                        upright original; null where there is none), copy_of (sample_id of the
                        image that this one was made of), copy_kind
    text_truth.parquet  documents, a row each: source, doc_id, outcome, text (cleaned; null unless
                        the outcome is ``ok``)

Pages that are no articles have no row. Images of COCO's val and test have none either: no
training reads them; where they were copied from they are called ``coco_eval/<cocoid>``.
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


@dataclass(frozen=True)
class Row:
    """What must become of an image."""

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
    """What must become of a document."""

    source: str
    doc_id: str
    outcome: str
    text: str | None


@dataclass
class Written:
    """What a writer of images leaves behind."""

    rows: list[Row] = field(default_factory=list)
    originals: dict[str, DrawnImage] = field(default_factory=dict)
    "By sample_id: images that come through, of which others may be copies."


def write_truth(folder: Path, rows: Sequence[Row], texts: Sequence[TextRow]) -> None:
    """Write both tables."""
    tables: tuple[tuple[str, Sequence[Any], pa.Schema], ...] = (
        (TRUTH, rows, _ROWS),
        (TEXT_TRUTH, texts, _TEXTS),
    )
    for name, entries, schema in tables:
        pq.write_table(pa.Table.from_pylist([*map(asdict, entries)], schema), folder / name)
