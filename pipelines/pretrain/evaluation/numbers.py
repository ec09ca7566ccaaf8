"""All numbers of an evaluation."""

from collections.abc import Callable, Sequence
from typing import Final

import pyarrow as pa

from model.training import randomness
from orchestration import Slice
from pipelines.pretrain.evaluation import features, grounding, labels, masked, retrieval
from pipelines.pretrain.evaluation.params import Params
from pipelines.pretrain.evaluation.slices import (
    GROUNDING,
    LIKELIHOOD,
    MASKED,
    EvaluationSlices,
)

Read = Callable[[Sequence[Slice], str], pa.Table]
"Returns a table of what some slices gave, of at least one."
_PURPOSE: Final = 35
"Of random numbers."


def evaluation_numbers(
    slices: EvaluationSlices, read: Read, params: Params, seed: int
) -> dict[str, float]:
    """Return what was measured, each number beside its baselines.

    Args:
        slices: what was predicted.
        read: returns the results of slices, as ``Predictor`` gives them.
        params: of the evaluation.
        seed: of the recipe.
    """
    seed = int(randomness.bits(seed, _PURPOSE))
    numbers: dict[str, float] = {}
    if slices.masked:
        numbers |= masked.masked_numbers(read(slices.masked, MASKED))
    if slices.grounding:
        numbers |= grounding.grounding_numbers(read(slices.grounding, GROUNDING), seed)
    if slices.bank_images and slices.query_images:
        bank = read(slices.bank_images, features.IMAGES)
        queries = read(slices.query_images, features.IMAGES)
        numbers |= labels.image_numbers(bank, queries, params.num_neighbors)
    if slices.bank_texts and slices.query_texts:
        bank = read(slices.bank_texts, features.TEXTS)
        queries = read(slices.query_texts, features.TEXTS)
        numbers |= labels.text_numbers(bank, queries)
    if slices.query_pairs:
        asked = _features_of_pairs(read, slices.query_pairs)
        tuned_on = _features_of_pairs(read, slices.bank_pairs) if slices.bank_pairs else None
        numbers |= retrieval.feature_numbers(asked, tuned_on, seed)
    if slices.likelihood:
        numbers |= retrieval.likelihood_numbers(read(slices.likelihood, LIKELIHOOD))
    return numbers


def _features_of_pairs(read: Read, slices: Sequence[Slice]) -> tuple[pa.Table, pa.Table]:
    return read(slices, features.IMAGES), read(slices, features.TEXTS)
