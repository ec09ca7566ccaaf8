"""Search: the rows of an ``embed`` output whose features are nearest to those of a query.

The search is exact: every row is compared, a row group at a time, so memory does not grow with the
number of rows.
"""

from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataprep.images import ImageError, decode_image
from dataprep.text import clean_caption
from orchestration import Dataset
from orchestration.errors import RecipeError
from orchestration.fingerprint import file_digest
from orchestration.manifest import MANIFEST, read_manifest
from orchestration.plan import records_of
from orchestration.storage.store import Store
from pipelines.apply.model_location import as_recipe_error
from pipelines.inference.pretrained_model import PretrainedModel
from pipelines.inference.uses import require
from pipelines.readers.rows import RowReader

STAGE: Final = "embed"
_DECIMALS: Final = 6
"Decimals of a cosine; of rows with equal ones the first is nearest."
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Found:
    """A row near a query."""

    id: str
    path: str | None
    "File of the image, or of the row; None for a text that was given itself."
    text: str | None
    score: float
    "Cosine of the angle between its feature and the query's."


def open_features(workdir: Store, model_digest: str, tokenizer: Path | None = None) -> Dataset:
    """Open what the newest ``embed`` wrote into a workdir.

    Args:
        workdir: of the command ``embed``.
        model_digest: of the model that the queries are embedded with.
        tokenizer: SentencePiece model that is given for them, if any.

    Raises:
        RecipeError: nothing was embedded there, not to its end, with another model or vocabulary,
            or no row.
    """
    records = [record for record in records_of(workdir) if STAGE in record["stages"]]
    if not records:
        raise RecipeError(f"{workdir.uri}: nothing was embedded here; run `beit3 embed` first")
    newest = max(records, key=lambda record: float(record["started_at"]))
    folder = workdir.sub(f"{STAGE}/{newest['stages'][STAGE]}")
    if not folder.exists(MANIFEST):
        raise RecipeError(
            f"{workdir.uri}: the features are not complete; run the same `beit3 embed` again"
        )
    made_with = read_manifest(folder).params
    vocabulary = made_with.get("text_tokenizer")
    if tokenizer is not None and vocabulary not in (None, file_digest(tokenizer)):
        raise RecipeError(
            f"{workdir.uri}: the features were made with another vocabulary than {tokenizer}; name "
            "theirs with --tokenizer, or embed again"
        )
    if made_with["model"] != model_digest:
        raise RecipeError(
            f"{workdir.uri}: the features were made by another model, so that no query of this "
            "model can be compared with them; name their model, or embed again"
        )
    features = Dataset.open(folder)
    if not features.num_rows:
        num_rejects = features.table("rejects").num_rows
        raise RecipeError(
            f"{workdir.uri}: no row was embedded, {num_rejects} are rejects; see `beit3 rejects "
            f"{STAGE} --workdir {quote(workdir.uri)}`"
        )
    return features


def embed_query(
    model: PretrainedModel, features: Dataset, text: str | None, image: Path | None
) -> Floats:
    """Return the feature (1, D) of a query.

    Args:
        model: that made the features.
        features: what is searched.
        text: the query, or None.
        image: file of the query, if there is no text.

    Raises:
        RecipeError: the image cannot be read, or the model's features of images and texts cannot
            be compared.
    """
    if _holds_others(features, of_texts=text is not None):
        with as_recipe_error():
            require(model, "similarity")
    if image is not None:
        try:
            pixels = decode_image(image.expanduser().read_bytes())
        except (ImageError, OSError) as error:
            words = str(error) if isinstance(error, ImageError) else error.strerror
            raise RecipeError(f"--image {image}: {words}; name another image") from None
        with as_recipe_error():
            return model.embed_images([pixels])
    query = clean_caption(text or "")
    if not query:
        raise RecipeError("the text to search by is empty")
    with as_recipe_error():
        return model.embed_texts([query])


def _holds_others(features: Dataset, *, of_texts: bool) -> bool:
    """Return whether there are rows of another kind than a query's: a text, or an image."""
    for group in features.row_groups():
        texts = features.read_group(group, ["text"]).column("text")
        if texts.null_count != (0 if of_texts else len(texts)):
            return True
    return False


def nearest(features: Dataset, queries: Floats, num_best: int) -> list[list[Found]]:
    """Return the nearest rows of each query, best first; of equal ones the first rows.

    Args:
        features: table with a column ``features`` of unit length.
        queries: (Q, D) of unit length.
        num_best: largest number of rows per query.
    """
    scores, numbers = nearest_rows(features, queries, num_best)
    reader = RowReader(features, ["id", "path", "text"], keep=num_best)
    found = []
    for some_scores, some_numbers in zip(scores, numbers, strict=True):
        kept = np.isfinite(some_scores)  # features of damaged weights are near nothing
        some_scores, some_numbers = some_scores[kept], some_numbers[kept]
        rows = reader.take(some_numbers).to_pylist() if len(some_numbers) else []
        found.append(
            [Found(**row, score=float(s)) for row, s in zip(rows, some_scores, strict=True)]
        )
    return found


def nearest_rows(
    features: Dataset, queries: Floats, num_best: int
) -> tuple[Floats, NDArray[np.int64]]:
    """Return scores and row numbers, (Q, K) each, of the K nearest rows; see :func:`nearest`."""
    scores = np.empty((len(queries), 0), np.float32)
    numbers = np.empty((len(queries), 0), np.int64)
    for group in features.row_groups():
        column = features.read_group(group, ["features"]).column("features")
        # Sums of equal rows differ in their last bits with the place of a row in the matrix.
        some = np.round(queries @ _matrix(column, queries.shape[1]).T, _DECIMALS)
        here = np.arange(group.first_row, group.first_row + group.num_rows)
        scores = np.concatenate([scores, some], axis=1)
        numbers = np.concatenate([numbers, np.broadcast_to(here, some.shape)], axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :num_best]
        scores = np.take_along_axis(scores, best, 1)
        numbers = np.take_along_axis(numbers, best, 1)
    return scores, numbers


def _matrix(column: pa.ChunkedArray, width: int) -> Floats:
    """Return features as an array (rows, width)."""
    values = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(values, np.float32).reshape(len(column), width)
