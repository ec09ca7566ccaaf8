"""An operation on inputs in this process, without Ray, and its results for the terminal."""

import json
from base64 import b64encode
from collections.abc import Generator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from rich.markup import escape
from rich.table import Table

from dataprep.row_errors import RowError
from pipelines.apply.applying import Applier, Row
from pipelines.apply.inputs import SOURCE, InputParams, input_slices
from pipelines.apply.listing import list_slice
from pipelines.apply.operations import OPERATIONS
from pipelines.apply.params import ApplyParams

_SHOWN_NUMBERS: Final = 4
_SHOWN_OBJECTS: Final = 5


def results(
    operation: str, inputs: InputParams, params: ApplyParams
) -> Generator[tuple[Row, RowError | None], None, None]:
    """Yield each input with the operation's columns, or with why it cannot be used.

    Raises:
        RecipeError: a file cannot be used, or the model cannot be loaded or has no such head.
    """
    slices = list(input_slices(inputs))
    apply = Applier(OPERATIONS[operation], params, device=None)
    for slice_ in slices:
        rows, rejects = list_slice(slice_.payload, inputs.image_column, inputs.question, SOURCE)
        for reject in rejects:
            row = {"id": reject["sample_id"], "path": reject["url"]}
            yield row, RowError(reject["reason"] or "", reject["detail"] or "")
        yield from apply(rows)


def json_line(row: Row) -> str:
    """Return a result as JSON on one line; bytes, as of a label map, are base64."""
    values = {name: _as_json(name, value) for name, value in row.items()}
    return json.dumps(values, ensure_ascii=False)


def _as_json(name: str, value: Any) -> Any:
    if name in ("features", "scores"):
        return [float(each) for each in value]
    return b64encode(value).decode() if isinstance(value, bytes) else value


def table_of_results(operation: str, rows: Sequence[Row]) -> Table:
    """Return results as a table."""
    asks = any(row["text"] is not None and row["path"] is not None for row in rows)
    column = OPERATIONS[operation].columns.names[0]
    table = Table("input", *(["text"] if asks else []), column)
    for row in rows:
        text = " | ".join(filter(None, (row["text"], row["second_text"])))
        paths = [row["path"], row["second_path"]]
        name = " + ".join(_shown(path) for path in paths if path is not None) or text
        number = f":{row['row']}" if row["row"] is not None and row["path"] is not None else ""
        texts = [text] if asks else []
        table.add_row(*map(escape, (f"{name}{number}", *texts, _result(row))))
    return table


def _shown(path: str) -> str:
    """Return a path relative to the working folder, if it lies there."""
    here = f"{Path.cwd()}/"
    return path.removeprefix(here)


def _result(row: Row) -> str:
    if "features" in row:
        numbers = ", ".join(f"{value:.4f}" for value in row["features"][:_SHOWN_NUMBERS])
        return f"{len(row['features'])} numbers: {numbers}, …"
    if "caption" in row:
        return str(row["caption"])
    if "boxes" in row:
        return _objects(row)
    if "fractions" in row:
        parts = zip(row["labels"], row["fractions"], strict=True)
        return ", ".join(f"{label} {part:.1%}" for label, part in parts)
    labels = row["answers"] if "answers" in row else row["labels"]
    return ", ".join(
        f"{label} {score:.3f}" for label, score in zip(labels, row["scores"], strict=True)
    )


def _objects(row: Row) -> str:
    """Return the best objects with their boxes as columns and rows of pixels."""
    parts = zip(row["labels"], row["scores"], row["boxes"], strict=True)
    shown = [
        f"{label} {score:.3f} at {x:.0f},{y:.0f} {width:.0f}x{height:.0f}"
        for label, score, (x, y, width, height) in islice(parts, _SHOWN_OBJECTS)
    ]
    num_more = len(row["labels"]) - len(shown)
    more = [f"{num_more} more"] if num_more else []
    return "; ".join([*shown, *more]) or "no object"
