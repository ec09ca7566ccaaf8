"""Nearest neighbors and linear probes of frozen features, beside their baselines.

Each classifier is given features of the trained network, those of an untrained one, and plain
features that no network has computed; ``baseline_accuracy`` is that of the most frequent label.
"""

from collections.abc import Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from model.metrics.linear_probe import probe_accuracy
from model.metrics.neighbors import neighbor_accuracy
from pipelines.pretrain.evaluation.features import KINDS, Kind, features_of

_SUFFIXES: Final[dict[Kind, tuple[str, str]]] = {
    "trained": ("", ""),
    "untrained": ("/untrained", "/untrained"),
    "plain": ("/pixels", "/pieces"),
}
"Of the names of numbers, for images and for texts."


def image_numbers(bank: pa.Table, queries: pa.Table, num_neighbors: int) -> dict[str, float]:
    """Return the accuracy of nearest neighbors and of a linear probe for the labels of images.

    Args:
        bank: features of labeled training images.
        queries: features of labeled held-out images.
        num_neighbors: number of neighbors that vote.
    """
    bank_labels, labels = bank["label"].to_pylist(), queries["label"].to_pylist()
    numbers = _about(labels, ("knn", "probe"))
    for kind in KINDS:
        features = features_of(bank, kind), features_of(queries, kind)
        suffix = _SUFFIXES[kind][0]
        numbers[f"accuracy/knn{suffix}"] = neighbor_accuracy(
            features[0], bank_labels, features[1], labels, num_neighbors
        )
        found = probe_accuracy(features[0], bank_labels, features[1], labels)
        if found is not None:
            numbers[f"accuracy/probe{suffix}"] = found
    return numbers


def text_numbers(bank: pa.Table, queries: pa.Table) -> dict[str, float]:
    """Return the accuracy of linear probes of texts: their word order, and their source.

    Args:
        bank: features of training texts.
        queries: features of held-out texts.
    """
    numbers: dict[str, float] = {}
    for name, column in (("word_order", "label"), ("text_source", "source")):
        known = pc.is_in(queries[column], bank[column].combine_chunks())
        asked = queries.filter(known)
        labels = asked[column].to_pylist()
        if len(set(labels)) < 2:
            continue
        numbers |= _about(labels, (name,))
        for kind in KINDS:
            found = probe_accuracy(
                features_of(bank, kind), bank[column].to_pylist(), features_of(asked, kind), labels
            )
            if found is not None:
                numbers[f"accuracy/{name}{_SUFFIXES[kind][1]}"] = found
    return numbers


def _about(labels: Sequence[str], names: Sequence[str]) -> dict[str, float]:
    frequent = max(map(labels.count, set(labels))) / len(labels)
    return {
        key: value
        for name in names
        for key, value in (
            (f"baseline_accuracy/{name}", frequent),
            (f"num_classes/{name}", len(set(labels))),
        )
    }
