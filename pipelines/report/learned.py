"""What a pretrained network has learned, each number beside its baselines, for the console."""

from collections.abc import Iterator, Mapping
from typing import Final

from rich.table import Table

from model.training import objectives

_LABELS: Final = {
    "knn": "k-NN: labels of images",
    "probe": "linear probe: labels of images",
    "word_order": "linear probe: word order of texts",
    "text_source": "linear probe: source of texts",
}
_RETRIEVAL: Final = {
    "zero_shot": "R@1: features as they are",
    "tuned_heads": "R@1: features with tuned heads",
    "likelihood": "R@1: likelihood of words",
}
_PLAIN_HEADS: Final = {"tuned_heads": "tuned_heads_pixels_and_pieces"}
_WAY: Final = "image_to_text/recall_at_1"
_GAPS: Final = {
    "words": ("masked words", "image"),
    "patches": ("masked patches", "caption"),
}


def learned_table(numbers: Mapping[str, float]) -> Table:
    """Return loss and accuracy on held-out rows beside those of the best constant prediction."""
    table = Table("held-out", title="learned", title_justify="left")
    for column in ("targets", "loss", "guessing", "accuracy", "guessing"):
        table.add_column(column, justify="right")
    for objective in objectives.OBJECTIVES:
        key = objective.name
        if f"loss/{key}" not in numbers:
            continue
        accuracies = (numbers.get(f"{kind}/{key}") for kind in ("accuracy", "baseline_accuracy"))
        table.add_row(
            objective.title,
            f"{numbers[f'num_targets/{key}']:.0f}",
            f"{numbers[f'loss/{key}']:.3f}",
            f"{numbers[f'baseline_loss/{key}']:.3f}",
            *("" if value is None else f"{value:.1%}" for value in accuracies),
        )
    return table


def baselines_table(numbers: Mapping[str, float]) -> Table:
    """Return accuracies of the network's features and recalls beside those without training."""
    table = Table("features, held-out", title="beside baselines", title_justify="left")
    for column in ("network", "untrained", "pixels or pieces", "guessing"):
        table.add_column(column, justify="right")

    def shown(name: str) -> str:
        return f"{numbers[name]:.1%}" if name in numbers else ""

    for key, title in _LABELS.items():
        if f"accuracy/{key}" not in numbers:
            continue
        plain = "pixels" if key in ("knn", "probe") else "pieces"
        names = (f"{key}", f"{key}/untrained", f"{key}/{plain}")
        guessing = shown(f"baseline_accuracy/{key}")
        table.add_row(title, *(shown(f"accuracy/{name}") for name in names), guessing)
    for key, title in _RETRIEVAL.items():
        if f"retrieval/{key}/num_pairs" not in numbers:
            continue
        names = (key, f"{key}_untrained", _PLAIN_HEADS.get(key, ""))
        chance = shown(f"retrieval/{key}/chance/recall_at_1")
        table.add_row(title, *(shown(f"retrieval/{name}/{_WAY}") for name in names), chance)
    return table


def gap_lines(numbers: Mapping[str, float]) -> Iterator[str]:
    """Yield the grounding gaps and their controls, in percentage points with 95% intervals."""
    for kind, (masked, partner) in _GAPS.items():
        name = f"grounding/{kind}"
        if f"{name}/gap" in numbers:
            yield (
                f"grounding gap, {masked}: {_interval(numbers, f'{name}/gap')} with the right "
                f"{partner} instead of another one; control, two wrong ones: "
                f"{_interval(numbers, f'{name}/control')}"
            )


def _interval(numbers: Mapping[str, float], name: str) -> str:
    value, low, high = (100 * numbers[key] for key in (name, f"{name}_low", f"{name}_high"))
    return f"{value:+.1f} points ({low:+.1f} to {high:+.1f})"
