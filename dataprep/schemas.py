"""Arrow schemas of the datasets that stages exchange."""

from typing import Final

import pyarrow as pa

INDEX: Final = pa.schema(
    [
        ("sample_id", pa.string()),
        ("source", pa.string()),
        ("url", pa.string()),
        ("captions", pa.list_(pa.string())),
        ("sha256", pa.string()),
    ]
)
"One row a line of a list file that could be read; null: the list gives no digest."

REJECTS: Final = pa.schema(
    [
        ("sample_id", pa.string()),
        ("source", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("url", pa.string()),
    ]
)
"One row for each row that went no further, with the reason from a fixed list; null: no URL."

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
        ("hash_matches", pa.bool_()),
        ("captions", pa.list_(pa.string())),
        ("label", pa.string()),
    ]
)
"""A stored image: JPEG bytes and their size in pixels; digests of the original and of its look.

The URL is null where the image came out of an archive; ``hash_matches`` is null where the list
gives no digest: an image that was re-encoded since is a label, not a reason to drop it."""

DOCUMENTS: Final = pa.schema(
    [
        ("doc_id", pa.string()),
        ("source", pa.string()),
        ("text", pa.string()),
    ]
)
"One cleaned document a row."

KEPT: Final = pa.schema(
    [
        ("sample_id", pa.string()),
        ("dataset", pa.int32()),
        ("row", pa.int64()),
    ]
)
"An image that curation kept: its row in one of curation's inputs."


def rejects_table(rows: list[dict[str, str | None]]) -> pa.Table:
    """Return rejects as a table; ``rows`` may be empty."""
    return pa.Table.from_pylist(rows, REJECTS)


def reject(
    sample_id: str, source: str, reason: str, detail: str, url: str | None = None
) -> dict[str, str | None]:
    """Return one row of the rejects table."""
    return {
        "sample_id": sample_id,
        "source": source,
        "reason": reason,
        "detail": detail[:500],
        "url": url,
    }
