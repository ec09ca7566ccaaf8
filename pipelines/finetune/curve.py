"""Figure of a fine-tuning: the loss of its steps, and the metric on the dev split."""

from pathlib import Path

from pipelines.training.points import Points


def draw_curve(points: Points, metric: str, path: Path) -> None:
    """Draw the loss and, if the dev split was evaluated, its metric over the steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), dpi=120, layout="constrained")
    curves = {"loss": "loss", f"dev/{metric}": f"{metric} on dev"}
    for axes, (key, title) in zip(figure.subplots(1, 2), curves.items(), strict=True):
        if key in points:
            steps, values = points[key]
            axes.plot(steps, values, marker="." if len(steps) < 40 else "")
        axes.set_xlabel("optimizer step")
        axes.set_ylabel(title)
        axes.grid(alpha=0.2)
    figure.savefig(path)
