"""Accuracy of a linear classifier on frozen features: ridge regression on the labels.

It has a closed form, so that the result depends on nothing but the features. The penalty is the one
with the smallest leave-one-out error on the training samples.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from sklearn.linear_model import RidgeClassifierCV
from sklearn.preprocessing import StandardScaler
from torch import Tensor

_PENALTIES: Final = np.logspace(-2, 5, 8)
"For features with standard deviation 1."


def probe_accuracy(
    bank: Tensor, bank_labels: Sequence[str], queries: Tensor, query_labels: Sequence[str]
) -> float | None:
    """Return the fraction of queries whose label a linear classifier of the bank gives.

    Args:
        bank: (M, D) float, features of the training samples.
        bank_labels: M labels.
        queries: (N, D) float.
        query_labels: N labels.

    Returns:
        The accuracy; None if the bank has fewer than two classes.
    """
    if len(set(bank_labels)) < 2:
        return None
    scale = StandardScaler()
    inputs = scale.fit_transform(bank.double().numpy())
    classifier = RidgeClassifierCV(_PENALTIES).fit(inputs, np.array(bank_labels))
    found = classifier.predict(scale.transform(queries.double().numpy()))
    return float((found == np.array(query_labels)).mean())
