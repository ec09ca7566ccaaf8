"""Figure of the losses and masked accuracies of a pretraining, drawn from its history."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from model.training.batch import OBJECTIVES

_NAMES: Final = {
    "mlm": "words of texts (MLM)",
    "mim": "codes of images (MIM)",
    "mvlm_text": "words of pairs (MVLM)",
    "mvlm_image": "codes of pairs (MVLM)",
}
_SMOOTHING: Final = 0.1
"Weight of a new step in the moving average that is drawn."


def draw_losses(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw loss and masked accuracy of each objective over the steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), dpi=120, layout="constrained")
    for axes, kind in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for objective in OBJECTIVES:
            points = [
                (row["step"], row[f"{kind}/{objective}"])
                for row in history
                if f"{kind}/{objective}" in row
            ]
            if not points:
                continue
            steps, values = zip(*points, strict=True)
            (line,) = axes.plot(steps, values, linewidth=0.6, alpha=0.25)
            axes.plot(steps, _smooth(values), color=line.get_color(), label=_NAMES[objective])
        axes.set_xlabel("optimizer step")
        axes.set_ylabel(f"masked {kind}")
        axes.grid(alpha=0.2)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path)


def _smooth(values: Sequence[float]) -> list[float]:
    smooth, mean = [], values[0]
    for value in values:
        mean += _SMOOTHING * (value - mean)
        smooth.append(mean)
    return smooth
