"""The numbers of an evaluation as tables, each beside what no training reaches."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from model.metrics.retrieval import KS
from pipelines.report.charts import Interval, Whiskers, whiskers
from pipelines.report.learned import (
    Beside,
    Grounding,
    Learned,
    beside_baselines,
    groundings,
    learned,
    learned_by_source,
)

_WAYS: Final = {
    "image_to_text": "caption of an image",
    "text_to_image": "image of a caption",
}
_FEATURES: Final = {
    "zero_shot": "features as they are",
    "tuned_heads": "features, with tuned heads",
    "tuned_heads_untrained": "untrained network, with tuned heads",
    "tuned_heads_pixels_and_pieces": "pixels and pieces, with tuned heads",
    "likelihood": "likelihood of the caption's words",
}


@dataclass(frozen=True)
class Recall:
    """Recall at the first, 5 and 10 candidates, from 0 to 1, beside chance."""

    title: str
    way: str
    num_pairs: int
    values: Sequence[tuple[float, float]]
    "Recall and chance, of each number of candidates."


@dataclass(frozen=True)
class Evaluation:
    """Everything that an evaluation measured."""

    path: str
    learned: Sequence[Learned]
    beside: Sequence[Beside]
    groundings: Sequence[Grounding]
    gaps: Whiskers | None
    recalls: Sequence[Recall]
    sources: Sequence[tuple[str, Learned]]
    "By name of the source."
    ks: Sequence[int] = KS


def evaluation(path: str, numbers: Mapping[str, float]) -> Evaluation:
    """Return the tables of an evaluation's numbers.

    Args:
        path: folder of the stage within the workdir.
        numbers: of its manifest.
    """
    found = groundings(numbers)
    rows = [
        Interval(
            f"{each.masked}, {what}", interval.value, interval.low, interval.high, interval.words
        )
        for each in found
        for what, interval in (
            (f"right {each.partner} minus another one", each.gap),
            (f"control: two wrong {each.partner}s", each.control),
        )
    ]
    return Evaluation(
        path,
        learned(numbers),
        beside_baselines(numbers),
        found,
        whiskers(rows, with_zero=True),
        list(_recalls(numbers)),
        learned_by_source(numbers),
    )


def _recalls(numbers: Mapping[str, float]) -> Iterator[Recall]:
    for name, title in _FEATURES.items():
        for way, words in _WAYS.items():
            key = f"retrieval/{name}"
            if f"{key}/{way}/recall_at_{KS[0]}" in numbers:
                values = [
                    (numbers[f"{key}/{way}/recall_at_{k}"], numbers[f"{key}/chance/recall_at_{k}"])
                    for k in KS
                ]
                yield Recall(title, words, int(numbers[f"{key}/num_pairs"]), values)
