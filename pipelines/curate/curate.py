"""Curate: stored images → the rows that are trained on.

In: the images of every source, and those of the evaluation sets. Out: ``pairs`` and ``images``
(sample_id, number of the input dataset, row in it) and ``rejects``. An image for which several
reasons hold is dropped for the first of these:

- ``evaluation_image``: the same as an image of an evaluation set, or a near duplicate of one;
- ``placeholder``: one original in several rows with different captions, as a site shows where an
  image was removed;
- ``caption_length``: no caption has a fitting number of words;
- ``small_original``, ``aspect``: the original's size;
- ``duplicate``: an equal original was kept before;
- ``near_duplicate``: an image that looks the same was kept before.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from dataprep.near_duplicates import near_pairs
from dataprep.schemas import KEPT, REJECTS
from orchestration import Context, Dataset, Output, Slice, Stage, feeding
from orchestration.params import StageParams
from pipelines.curate.features import Features, read_features

REASONS: Final = (
    "evaluation_image",
    "placeholder",
    "caption_length",
    "small_original",
    "aspect",
    "duplicate",
    "near_duplicate",
)
_KEPT: Final = len(REASONS)
"Verdict of a row that is kept; any other verdict is the index of its reason."
_ROLES: Final = ("evaluation_sets", "pairs", "images")
_ROW_GROUP_ROWS: Final = 65_536


class Params(StageParams):
    """Rules for keeping an image."""

    min_placeholder_captions: int = Field(default=3, ge=2)
    "Smallest number of different captions of one original that makes it a placeholder."
    min_caption_words: int = Field(default=1, ge=1)
    "Smallest number of words of a caption; a pair needs one caption that fits."
    max_caption_words: int = Field(default=256, ge=1)
    "Largest number of words of a caption."
    min_original_side: int = Field(default=0, ge=0)
    "Smallest length in pixels of an original's shorter side."
    max_aspect_ratio: float = Field(default=10, ge=1)
    "Largest ratio of an original's longer side to its shorter side."
    max_hash_distance: int | None = Field(default=6, ge=0, le=12)
    "Largest Hamming distance of two near duplicates' perceptual hashes; null keeps them."
    max_color_difference: int = Field(default=20, ge=0, le=255)
    "Largest color difference (0-255) of two near duplicates in any grid cell and channel."
    max_aspect_difference: float = Field(default=0.1, ge=0)
    "Largest relative difference of two near duplicates' aspect ratios."


def stage(
    params: Params,
    *,
    evaluation_sets: Sequence[Stage],
    pairs: Sequence[Stage],
    images: Sequence[Stage],
) -> Stage:
    """Declare the stage; the order of the datasets decides which of two duplicates is kept."""
    return Stage(
        "curate",
        lambda context: run(context, params),
        params,
        feeding(evaluation_sets=evaluation_sets, pairs=pairs, images=images),
        version=3,
    )


def run(context: Context, params: Params) -> None:
    """Judge all images in one worker: duplicates can lie in any two sources."""
    inputs = {role: context.inputs(role) for role in _ROLES}
    slices = [Slice("000000", {role: len(datasets) for role, datasets in inputs.items()})]
    datasets = [dataset for role in _ROLES for dataset in inputs[role]]
    context.map_slices(slices, partial(curate, params, datasets), row_group_rows=_ROW_GROUP_ROWS)
    context.commit(slices)


def curate(params: Params, datasets: Sequence[Dataset], slice_: Slice) -> Output:
    """Judge every row of the datasets, which come in the order of the input roles.

    Args:
        params: the rules.
        datasets: evaluation sets, then sources of pairs, then sources of images.
        slice_: whose payload holds the number of datasets of each role.
    """
    num_evaluation, num_pairs = slice_.payload["evaluation_sets"], slice_.payload["pairs"]
    features = read_features(datasets, params.min_caption_words, params.max_caption_words)
    is_evaluation = features.dataset < num_evaluation
    is_pair = ~is_evaluation & (features.dataset < num_evaluation + num_pairs)
    verdict = judge(features, params, is_evaluation, is_pair)
    kept = {kind: [KEPT.empty_table()] for kind in ("pairs", "images")}
    rejects = [REJECTS.empty_table()]
    for number, dataset in enumerate(datasets[num_evaluation:]):
        mine = verdict[features.dataset == number + num_evaluation]
        rows = dataset.read(columns=["sample_id", "source", "sha256", "url"])
        kept["pairs" if number < num_pairs else "images"].append(_kept(number, rows, mine))
        rejects.append(_rejects(rows, mine))
    return Output(
        num_rows_in=int((~is_evaluation).sum()),
        tables={
            **{name: pa.concat_tables(tables) for name, tables in kept.items()},
            "rejects": pa.concat_tables(rejects),
        },
    )


def judge(
    features: Features,
    params: Params,
    is_evaluation: NDArray[np.bool_],
    is_pair: NDArray[np.bool_],
) -> NDArray[np.int8]:
    """Return the verdict on each row: the index of its reason, or ``len(REASONS)`` if it is kept.

    Args:
        features: of every row.
        params: the rules.
        is_evaluation: (N,), rows of evaluation sets; they are always kept.
        is_pair: (N,), rows that need a caption.
    """
    verdict = np.full(len(features), _KEPT, np.int8)
    shorter = np.minimum(features.width, features.height)
    longer = np.maximum(features.width, features.height)
    leaked = np.isin(features.digest, features.digest[is_evaluation])
    rules = {
        "aspect": longer > params.max_aspect_ratio * shorter,
        "small_original": shorter < params.min_original_side,
        "caption_length": is_pair & ~features.has_fitting_caption,
        "placeholder": features.num_captions >= params.min_placeholder_captions,
        "evaluation_image": leaked,
    }
    for reason, breaks in rules.items():
        verdict[breaks & ~is_evaluation] = REASONS.index(reason)
    left = np.flatnonzero((verdict == _KEPT) & ~is_evaluation)
    _, first = np.unique(features.digest[left], return_index=True)
    verdict[np.delete(left, first)] = REASONS.index("duplicate")
    if params.max_hash_distance is not None:
        _drop_near_duplicates(features, params, is_evaluation, verdict)
    return verdict


def _drop_near_duplicates(
    features: Features,
    params: Params,
    is_evaluation: NDArray[np.bool_],
    verdict: NDArray[np.int8],
) -> None:
    """Drop near duplicates of evaluation images and of earlier rows that are kept; sorted pairs
    make sure that the earlier row's own verdict is final."""
    for earlier, later in near_duplicates(features, params, np.flatnonzero(verdict == _KEPT)):
        if verdict[earlier] == _KEPT and not is_evaluation[later]:
            reason = "evaluation_image" if is_evaluation[earlier] else "near_duplicate"
            verdict[later] = REASONS.index(reason)


def near_duplicates(
    features: Features, params: Params, rows: NDArray[np.int64]
) -> Iterator[tuple[int, int]]:
    """Yield (earlier row, later row) of near duplicates, sorted by the later row."""
    assert params.max_hash_distance is not None
    pairs = rows[near_pairs(features.phash[rows], params.max_hash_distance)]
    if not len(pairs):
        return
    a, b = pairs.T
    colors = features.colors.astype(np.int16)
    aspect = np.log(features.width / features.height)
    alike = np.abs(aspect[a] - aspect[b]) <= np.log1p(params.max_aspect_difference)
    a, b = a[alike], b[alike]
    alike = np.abs(colors[a] - colors[b]).max(1) <= params.max_color_difference
    a, b = a[alike], b[alike]
    order = np.lexsort((a, b))
    yield from zip(a[order].tolist(), b[order].tolist(), strict=True)


def _kept(number: int, rows: pa.Table, verdict: NDArray[np.int8]) -> pa.Table:
    indices = np.flatnonzero(verdict == _KEPT)
    names = rows["sample_id"].take(pa.array(indices))
    numbers = pa.array(np.full(len(indices), number, np.int32))
    return pa.table([names, numbers, pa.array(indices)], schema=KEPT)


def _rejects(rows: pa.Table, verdict: NDArray[np.int8]) -> pa.Table:
    indices = np.flatnonzero(verdict != _KEPT)
    mine = rows.take(pa.array(indices))
    reasons = pa.array(np.array(REASONS, object)[verdict[indices]], pa.string())
    columns = [mine["sample_id"], mine["source"], reasons, mine["sha256"], mine["url"]]
    return pa.table(columns, schema=REJECTS)
