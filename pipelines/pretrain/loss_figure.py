"""Figure of the losses and masked accuracies of a pretraining, drawn from its history."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from model.training import objectives
from pipelines.training.points import Points

_SMOOTHING: Final = 0.1
"Weight of a new point in the moving average that is drawn."


def draw_losses(points: Points, path: Path) -> None:
    """Draw loss and masked accuracy of each objective over the steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), dpi=120, layout="constrained")
    for axes, kind in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for objective in objectives.OBJECTIVES:
            key = f"{kind}/{objective.name}"
            if key not in points:
                continue
            steps, values = points[key]
            axes.plot(steps, values, color=objective.color, linewidth=0.6, alpha=0.25)
            axes.plot(steps, _smooth(values), color=objective.color, label=objective.title)
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
