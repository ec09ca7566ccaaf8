"""Curate: which images go on.

In: the images of every source, and images that models are evaluated on. Out: ``pairs`` and
``images`` (sample_id, input dataset, row in it) and ``rejects``; nothing is copied and nothing is
deleted. Of several reasons the first below counts.
Drops: ``evaluation_image`` (the same as one that is held apart, or looks like it),
``placeholder`` (one image in several rows with different captions: what a site shows when a
image is gone), ``caption_length``, ``small_original``, ``aspect``, ``duplicate`` (the first of
equal originals that are left is kept), ``near_duplicate`` (the same for those that look alike).
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
from orchestration import Context, Dataset, Output, Slice
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


class Params(StageParams):
    """Rules for keeping an image."""

    placeholder_captions: int = Field(default=3, ge=2)
    "So many rows with different captions make an original a placeholder."
    min_caption_words: int = Field(default=2, ge=1)
    max_caption_words: int = Field(default=256, ge=1)
    min_original_side: int = Field(default=0, ge=0)
    "Pixels of the shorter side."
    max_aspect: float = Field(default=10, ge=1)
    "Longer side by shorter."
    near_bits: int | None = Field(default=6, ge=0, le=12)
    "By which the perceptual hashes of images that look alike may differ; null: do not look."
    near_colors: int = Field(default=20, ge=0, le=255)
    "By which the mean colors of their fields may differ at most, of 255."
    near_aspect: float = Field(default=0.1, ge=0)
    "By which their aspect ratios may differ, relative."


def run(context: Context, params: Params) -> None:
    """Judge all images in one worker: digests, hashes and captions only are read."""
    roles = ("evaluation", "pairs", "images")
    inputs = [context.inputs(role) for role in roles]
    slices = [Slice("000000", {role: len(mine) for role, mine in zip(roles, inputs, strict=True)})]
    datasets = [dataset for mine in inputs for dataset in mine]
    context.map_slices(slices, partial(curate, params, datasets), row_group_rows=65_536)
    context.commit(slices)


def curate(params: Params, datasets: Sequence[Dataset], piece: Slice) -> Output:
    """Judge every row, in the order of the datasets: evaluation, pairs, images."""
    num_evaluation, num_pairs = piece.payload["evaluation"], piece.payload["pairs"]
    features = read_features(datasets, params.min_caption_words, params.max_caption_words)
    evaluation_sets = features.dataset < num_evaluation
    is_pair = ~evaluation_sets & (features.dataset < num_evaluation + num_pairs)
    verdict = judge(features, params, evaluation_sets, is_pair)
    kept = {kind: [KEPT.empty_table()] for kind in ("pairs", "images")}
    rejects = [REJECTS.empty_table()]
    for number, dataset in enumerate(datasets[num_evaluation:]):
        mine = verdict[features.dataset == number + num_evaluation]
        rows = dataset.read(columns=["sample_id", "source", "sha256", "url"])
        kept["pairs" if number < num_pairs else "images"].append(_kept(number, rows, mine))
        rejects.append(_rejects(rows, mine))
    return Output(
        num_rows_in=int((~evaluation_sets).sum()),
        tables={
            **{name: pa.concat_tables(tables) for name, tables in kept.items()},
            "rejects": pa.concat_tables(rejects),
        },
    )


def judge(
    features: Features,
    params: Params,
    evaluation_sets: NDArray[np.bool_],
    is_pair: NDArray[np.bool_],
) -> NDArray[np.int8]:
    """Return for each row the number of its reason, or that of the reasons for one that is kept."""
    verdict = np.full(len(features), _KEPT, np.int8)
    shorter = np.minimum(features.width, features.height)
    longer = np.maximum(features.width, features.height)
    leaked = np.isin(features.digest, features.digest[evaluation_sets])
    rules = {
        "aspect": longer > params.max_aspect * shorter,
        "small_original": shorter < params.min_original_side,
        "caption_length": is_pair & ~features.has_fitting_caption,
        "placeholder": features.num_captions >= params.placeholder_captions,
        "evaluation_image": leaked,
    }
    for reason, breaks in rules.items():
        verdict[breaks & ~evaluation_sets] = REASONS.index(reason)
    left = np.flatnonzero((verdict == _KEPT) & ~evaluation_sets)
    _, first = np.unique(features.digest[left], return_index=True)
    verdict[np.delete(left, first)] = REASONS.index("duplicate")
    if params.near_bits is not None:
        _judge_near(features, params, evaluation_sets, verdict)
    return verdict


def _judge_near(
    features: Features,
    params: Params,
    evaluation_sets: NDArray[np.bool_],
    verdict: NDArray[np.int8],
) -> None:
    """Drop what looks like an image that is held apart, or like an earlier one that is kept."""
    for earlier, later in look_alikes(features, params, np.flatnonzero(verdict == _KEPT)):
        if verdict[earlier] == _KEPT and not evaluation_sets[later]:
            reason = "evaluation_image" if evaluation_sets[earlier] else "near_duplicate"
            verdict[later] = REASONS.index(reason)


def look_alikes(
    features: Features, params: Params, rows: NDArray[np.int64]
) -> Iterator[tuple[int, int]]:
    """Yield (earlier row, later row) of images that look alike, sorted by the later one."""
    assert params.near_bits is not None
    pairs = rows[near_pairs(features.phash[rows], params.near_bits)]
    if not len(pairs):
        return
    a, b = pairs.T
    colors = features.colors.astype(np.int16)
    aspect = np.log(features.width / features.height)
    alike = np.abs(aspect[a] - aspect[b]) <= np.log1p(params.near_aspect)
    a, b = a[alike], b[alike]
    alike = np.abs(colors[a] - colors[b]).max(1) <= params.near_colors
    a, b = a[alike], b[alike]
    order = np.lexsort((a, b))
    yield from zip(a[order].tolist(), b[order].tolist(), strict=True)


def _kept(number: int, rows: pa.Table, verdict: NDArray[np.int8]) -> pa.Table:
    places = np.flatnonzero(verdict == _KEPT)
    names = rows["sample_id"].take(pa.array(places))
    numbers = pa.array(np.full(len(places), number, np.int32))
    return pa.table([names, numbers, pa.array(places)], schema=KEPT)


def _rejects(rows: pa.Table, verdict: NDArray[np.int8]) -> pa.Table:
    places = np.flatnonzero(verdict != _KEPT)
    mine = rows.take(pa.array(places))
    reasons = pa.array(np.array(REASONS, object)[verdict[places]], pa.string())
    columns = [mine["sample_id"], mine["source"], reasons, mine["sha256"], mine["url"]]
    return pa.table(columns, schema=REJECTS)
