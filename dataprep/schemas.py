"""Arrow schemas of the datasets that stages exchange."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from dataprep.text import arrow_safe

INDEX: Final = pa.schema(
    [
        ("sample_id", pa.string()),
        ("source", pa.string()),
        ("url", pa.string()),
        ("captions", pa.list_(pa.string())),
        ("sha256", pa.string()),
        ("held_out", pa.bool_()),
        ("group", pa.string()),
    ]
)
"""One row per readable line of a list file.

| field | content |
|---|---|
| ``sample_id`` | ``<source>/<number in the list>``; unique |
| ``source`` | name of the source in the recipe |
| ``url`` | address of the image, ``http`` or ``https`` |
| ``captions`` | cleaned captions, at least one |
| ``sha256`` | the list's hexadecimal SHA-256 of the image; null if it gives none |
| ``held_out`` | whether the list keeps the row out of training; null if it does not say |
| ``group`` | rows of one group are trained on or held out together; null if the list gives none |
"""

REJECTS: Final = pa.schema(
    [
        ("sample_id", pa.string()),
        ("source", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("url", pa.string()),
    ]
)
"""One row per input row that a stage dropped.

| field | content |
|---|---|
| ``sample_id`` | id of the sample or document |
| ``source`` | name of the source in the recipe |
| ``reason`` | why the row was dropped, from the stage's fixed list |
| ``detail`` | what exactly was wrong, for people |
| ``url`` | address of the image; null if it has none |
"""

IMAGES: Final = pa.schema(
    [
        ("sample_id", pa.string()),
        ("source", pa.string()),
        ("url", pa.string()),
        ("jpeg", pa.binary()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("original_width", pa.int32()),
        ("original_height", pa.int32()),
        ("original_bytes", pa.int64()),
        ("sha256", pa.string()),
        ("phash", pa.string()),
        ("colors", pa.binary()),
        ("gray", pa.binary()),
        ("hash_matches", pa.bool_()),
        ("captions", pa.list_(pa.string())),
        ("label", pa.string()),
        ("held_out", pa.bool_()),
        ("group", pa.string()),
    ]
)
"""One row per stored image.

| field | content |
|---|---|
| ``sample_id`` | ``<source>/<name in the source>``; unique |
| ``source`` | name of the source in the recipe |
| ``url`` | address of the image; null if it came out of an archive |
| ``jpeg`` | bytes of the stored JPEG: upright RGB or gray |
| ``width``, ``height`` | size of the stored JPEG in pixels |
| ``original_width``, ``original_height`` | upright size of the original in pixels |
| ``original_bytes`` | size of the original file; null if the fetch engine does not report it |
| ``sha256`` | hexadecimal SHA-256 of the original file |
| ``phash`` | perceptual hash, 16 hexadecimal digits |
| ``colors`` | mean RGB of each cell of a grid, row by row, one byte per channel |
| ``gray`` | mean gray of each cell of a finer grid, row by row, one byte each |
| ``hash_matches`` | whether ``sha256`` equals the list's; null if the list gives none |
| ``captions`` | cleaned captions; empty for images without text |
| ``label`` | class of the image; empty if it has none |
| ``held_out``, ``group`` | as in the index; null for images that lie in archives or folders |

``hash_matches`` is a label: an image that its site re-encoded since is kept.
"""

DOCUMENTS: Final = pa.schema(
    [
        ("doc_id", pa.string()),
        ("source", pa.string()),
        ("text", pa.string()),
    ]
)
"""One row per cleaned document.

| field | content |
|---|---|
| ``doc_id`` | ``<source>/<name in the source>``; unique |
| ``source`` | name of the source in the recipe |
| ``text`` | cleaned text, one paragraph per line |
"""

KEPT: Final = pa.schema(
    [
        ("sample_id", pa.string()),
        ("dataset", pa.int32()),
        ("row", pa.int64()),
        ("captions", pa.list_(pa.large_string())),
    ]
)
"""One row per image that curation kept.

| field | content |
|---|---|
| ``sample_id`` | id of the image |
| ``dataset`` | index of the input dataset among curation's inputs |
| ``row`` | row number of the image in that dataset |
| ``captions`` | captions that it keeps, its own before those of its copies; empty in ``images`` |
"""

OBJECT: Final = pa.struct(
    [
        ("id", pa.int64()),
        ("box", pa.list_(pa.float64())),
        ("area", pa.float64()),
        ("is_crowd", pa.bool_()),
        ("mask", pa.string()),
    ]
)
"An annotated object; see ``dataprep.tasks.example.AnnotatedObject``."

EXAMPLES: Final = pa.schema(
    [
        ("example_id", pa.string()),
        ("images", pa.list_(pa.binary())),
        ("texts", pa.list_(pa.string())),
        ("labels", pa.list_(pa.string())),
        ("main_label", pa.string()),
        ("objects", pa.list_(OBJECT)),
        ("size", pa.list_(pa.int32())),
        ("label_map", pa.binary()),
    ]
)
"""One row per example of a downstream task; see ``dataprep.tasks.example``.

| field | content |
|---|---|
| ``example_id`` | id within the split; unique |
| ``images`` | bytes of the stored JPEGs: upright RGB or gray |
| ``texts`` | cleaned texts |
| ``labels`` | labels as annotated; empty where the split has none |
| ``main_label`` | the label that the annotators agree on most; empty if the file names none |
| ``objects`` | for detection the object of each of ``labels``; else empty |
| ``size`` | for detection and segmentation width and height of the annotated image |
| ``label_map`` | for segmentation a PNG of the place of each pixel's class among ``labels`` |
"""

PREDICTIONS: Final = pa.schema(
    [
        ("row", pa.int64()),
        ("example_id", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float32())),
        ("features", pa.list_(pa.list_(pa.float32()))),
        ("boxes", pa.list_(pa.list_(pa.float32()))),
        ("masks", pa.list_(pa.string())),
        ("size", pa.list_(pa.int32())),
        ("label_map", pa.binary()),
    ]
)
"""One row per example that a fine-tuned network was given.

| field | content |
|---|---|
| ``row`` | row number of the example in its split |
| ``example_id`` | id of the example |
| ``labels`` | predicted labels, best first; for several labels per example, those predicted |
| ``scores`` | score of each of ``labels``; of a regression, the one number |
| ``features`` | for retrieval the feature of the image, then that of each text; else empty |
| ``boxes`` | for detection x, y, width and height of each of ``labels`` in pixels; else empty |
| ``masks`` | for detection the mask of each box as run lengths, if masks are predicted |
| ``size`` | width and height of the image, to which boxes and masks refer; else empty |
| ``label_map`` | for segmentation a PNG of the place of each pixel's class among ``labels`` |
"""


def table_of(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Return rows as a table; strings that are not valid Unicode are cleaned by ``arrow_safe``."""
    try:
        return pa.Table.from_pylist(list(rows), schema)
    except UnicodeEncodeError:
        return pa.Table.from_pylist([_safe(row) for row in rows], schema)


def rejects_table(rows: Sequence[Mapping[str, str | None]]) -> pa.Table:
    """Return rejects as a table; ``rows`` may be empty."""
    return table_of(rows, REJECTS)


def reject(
    sample_id: str, source: str, reason: str, detail: str, url: str | None = None
) -> dict[str, str | None]:
    """Return one row of the rejects table; a detail may quote lines, and bytes that are no text."""
    return {
        "sample_id": sample_id,
        "source": source,
        "reason": reason,
        "detail": " ".join(detail.split())[:500].encode("utf-8", "backslashreplace").decode(),
        "url": url,
    }


def _safe(value: Any) -> Any:
    if isinstance(value, str):
        return arrow_safe(value)
    if isinstance(value, Mapping):
        return {key: _safe(inner) for key, inner in value.items()}
    return [_safe(inner) for inner in value] if isinstance(value, list) else value
