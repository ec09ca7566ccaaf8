"""What a pretrained network has learned, each number beside its baselines."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Learned:
    """Loss and accuracy of one objective on held-out rows, beside the best constant prediction."""

    title: str
    num_targets: int
    loss: float
    "Nats, or the mean square of normalized pixels."
    guessing_loss: float
    accuracy: float | None
    "From 0 to 1; None of pixels."
    guessing_accuracy: float | None


@dataclass(frozen=True)
class Beside:
    """An accuracy or recall of the network's features; None where nothing was measured."""

    title: str
    network: float
    untrained: float | None
    plain: float | None
    "Of pixels or pieces, without a network."
    guessing: float


@dataclass(frozen=True)
class Interval:
    """A difference of accuracies, from -1 to 1, with its 95% interval."""

    value: float
    low: float
    high: float

    @property
    def words(self) -> str:
        """The difference in percentage points."""
        value, low, high = (100 * number for number in (self.value, self.low, self.high))
        return f"{value:+.1f} points ({low:+.1f} to {high:+.1f})"


@dataclass(frozen=True)
class Grounding:
    """A grounding gap and its control."""

    masked: str
    "What is predicted, as in ``masked words``."
    partner: str
    "What helps to predict it: ``image`` or ``caption``."
    gap: Interval
    control: Interval


def learned(numbers: Mapping[str, float]) -> list[Learned]:
    """Return what was measured of each objective."""
    return [
        _learned(numbers, objective.title, objective.name)
        for objective in objectives.OBJECTIVES
        if f"loss/{objective.name}" in numbers
    ]


def learned_by_source(numbers: Mapping[str, float]) -> list[tuple[str, Learned]]:
    """Return what was measured of each objective on the rows of each source, by its name."""
    return [
        (name.removeprefix(prefix), _learned(numbers, objective.title, name.removeprefix("loss/")))
        for objective in objectives.OBJECTIVES
        for name in sorted(numbers)
        if name.startswith(prefix := f"loss/{objective.name}/")
    ]


def beside_baselines(numbers: Mapping[str, float]) -> list[Beside]:
    """Return accuracies of the network's features and recalls beside those without training."""
    found = []
    for key, title in _LABELS.items():
        if f"accuracy/{key}" in numbers:
            plain = "pixels" if key in ("knn", "probe") else "pieces"
            row = Beside(
                title,
                network=numbers[f"accuracy/{key}"],
                untrained=numbers.get(f"accuracy/{key}/untrained"),
                plain=numbers.get(f"accuracy/{key}/{plain}"),
                guessing=numbers[f"baseline_accuracy/{key}"],
            )
            found.append(row)
    for key, title in _RETRIEVAL.items():
        if f"retrieval/{key}/num_pairs" in numbers:
            row = Beside(
                title,
                network=numbers[f"retrieval/{key}/{_WAY}"],
                untrained=numbers.get(f"retrieval/{key}_untrained/{_WAY}"),
                plain=numbers.get(f"retrieval/{_PLAIN_HEADS.get(key, '')}/{_WAY}"),
                guessing=numbers[f"retrieval/{key}/chance/recall_at_1"],
            )
            found.append(row)
    return found


def groundings(numbers: Mapping[str, float]) -> list[Grounding]:
    """Return the grounding gaps that were measured, each with its control."""
    return [
        Grounding(
            masked,
            partner,
            _interval(numbers, f"grounding/{kind}/gap"),
            _interval(numbers, f"grounding/{kind}/control"),
        )
        for kind, (masked, partner) in _GAPS.items()
        if f"grounding/{kind}/gap" in numbers
    ]


def learned_table(numbers: Mapping[str, float]) -> Table:
    """Return :func:`learned` for the terminal."""
    table = Table("held-out", title="learned", title_justify="left")
    for column in ("targets", "loss", "guessing", "accuracy", "guessing"):
        table.add_column(column, justify="right")
    for row in learned(numbers):
        losses = f"{row.loss:.3f}", f"{row.guessing_loss:.3f}"
        accuracies = map(percent, (row.accuracy, row.guessing_accuracy))
        table.add_row(row.title, f"{row.num_targets}", *losses, *accuracies)
    return table


def baselines_table(numbers: Mapping[str, float]) -> Table:
    """Return :func:`beside_baselines` for the terminal."""
    table = Table("features, held-out", title="beside baselines", title_justify="left")
    for column in ("network", "untrained", "pixels or pieces", "guessing"):
        table.add_column(column, justify="right")
    for row in beside_baselines(numbers):
        values = (row.network, row.untrained, row.plain, row.guessing)
        table.add_row(row.title, *map(percent, values))
    return table


def gap_lines(numbers: Mapping[str, float]) -> Iterator[str]:
    """Yield the grounding gaps and their controls, in percentage points with 95% intervals."""
    for found in groundings(numbers):
        yield (
            f"grounding gap, {found.masked}: {found.gap.words} with the right {found.partner} "
            f"instead of another one; control, two wrong ones: {found.control.words}"
        )


def percent(value: float | None) -> str:
    """Return a fraction for display, as in ``55.7%``; nothing for None."""
    return "" if value is None else f"{value:.1%}"


def _learned(numbers: Mapping[str, float], title: str, key: str) -> Learned:
    return Learned(
        title,
        int(numbers[f"num_targets/{key}"]),
        numbers[f"loss/{key}"],
        numbers[f"baseline_loss/{key}"],
        numbers.get(f"accuracy/{key}"),
        numbers.get(f"baseline_accuracy/{key}"),
    )


def _interval(numbers: Mapping[str, float], name: str) -> Interval:
    return Interval(numbers[name], numbers[f"{name}_low"], numbers[f"{name}_high"])
