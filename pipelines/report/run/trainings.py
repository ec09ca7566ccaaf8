"""The curves of every training of a workflow, as charts.

Losses and gradients are in the stage's history, which also holds those of a training that goes on.
Speed and memory are in MLflow alone, and so are evaluations of earlier checkpoints.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from model.training import objectives
from orchestration.errors import PipelineError
from orchestration.reporting.latest_run import LatestRun
from orchestration.reporting.metric_history import MetricHistory, metric_history
from orchestration.storage.store import Store
from pipelines.report.charts import Chart, line_chart
from pipelines.training.history import points_so_far
from pipelines.training.points import Points

_MAX_POINTS: Final = 240
_HELD_OUT: Final = "held_out/"
_FROM_MLFLOW: Final = ("speed/", "memory/", _HELD_OUT)
_TITLES: Final = {objective.name: objective.title for objective in objectives.OBJECTIVES}
_COLORS: Final = {objective.name: objective.color for objective in objectives.OBJECTIVES}
_SPEED: Final = (
    ("throughput", "samples per second", {"speed/samples_per_s": "samples/s"}),
    ("waiting for data", "fraction of the time", {"speed/data_wait_fraction": "waiting"}),
    (
        "use of the device",
        "fraction of its operations per second",
        {"speed/mfu": "MFU", "speed/measured_peak_fraction": "of the measured matmul rate"},
    ),
    (
        "memory",
        "peak of a worker, GB",
        {"memory/host_bytes": "host", "memory/device_bytes": "device"},
    ),
)


@dataclass(frozen=True)
class Training:
    """The curves of one training stage."""

    stage: str
    path: str
    steps: int
    "Largest step in its history."
    charts: Sequence[Chart]
    "From its history."
    speed: Sequence[Chart]
    "From MLflow: speed, memory, and evaluations of checkpoints."
    missing: str
    "Why MLflow gives none of them, else empty."


def trainings(
    workdir: Store,
    stages: Mapping[str, str],
    latest: LatestRun | None,
    tell: Callable[[str], None],
) -> list[Training]:
    """Return the trainings of a workflow that have a history.

    Args:
        workdir: folder of the outputs.
        stages: fingerprints by name.
        latest: the workflow's MLflow run; None if it has none.
        tell: receives a line for each part of a history that is lost, which is left out.
    """
    found = []
    for name, fingerprint in stages.items():
        folder = workdir.sub(f"{name}/{fingerprint}")
        try:
            points, steps = points_so_far(folder, _MAX_POINTS, tell)
        except PipelineError:
            continue  # the table of stages says what is damaged
        if not points:
            continue
        if latest is None:
            tracked = MetricHistory(missing="the workflow has no MLflow run")
        else:
            tracked = metric_history(folder, latest, lambda n: n.startswith(_FROM_MLFLOW))
        found.append(
            Training(
                name,
                f"{name}/{fingerprint}",
                steps,
                _charts(points),
                _tracked_charts(thinned(tracked.points)),
                tracked.missing,
            )
        )
    return found


def _charts(points: Points) -> list[Chart]:
    wanted: list[tuple[Any, ...]] = [
        ("loss", "nats, or mean square of normalized pixels", *_of_objectives(points, "loss/")),
        ("accuracy at masked positions", "fraction", *_of_objectives(points, "accuracy/")),
        ("loss", "as the training minimizes it", {"loss": "loss"}),
        ("cosine with the teacher", "from -1 to 1", {"teacher_cosine": "cosine"}),
        (
            "codes that a batch uses",
            "number of codes",
            {"num_codes_in_batch": "in a batch"},
        ),
        (
            "codebook of an epoch",
            "number of codes",
            {"epoch/codebook_perplexity": "perplexity", "epoch/num_dead_codes": "dead codes"},
        ),
        ("gradient norm", "L2 norm before clipping", _gradients(points)),
        ("learning rate", "at the step", {"lr": "lr"}),
        (
            "skipped steps",
            "of the steps of a row",
            {name: name for name in ("skipped", "spikes") if any(points.get(name, ((), ()))[1])},
        ),
    ]
    return [chart for each in wanted if (chart := line_chart(each[0], each[1], points, *each[2:]))]


def _of_objectives(points: Points, prefix: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return titles and colors of the objectives' metrics, or of the dev metric's, by name."""
    names = [name for name in points if name.startswith(prefix)]
    keys = {name: name.removeprefix(prefix) for name in names}
    titles = {name: _TITLES.get(key, key) for name, key in keys.items()}
    return titles, {name: _COLORS[key] for name, key in keys.items() if key in _COLORS}


def _gradients(points: Points) -> dict[str, str]:
    names = [n for n in points if n == "grad_norm" or n.startswith("grad_norm/")]
    return {name: name.removeprefix("grad_norm/").replace("grad_norm", "all") for name in names}


def _tracked_charts(points: Points) -> list[Chart]:
    charts = [line_chart(title, unit, points, names) for title, unit, names in _SPEED]
    for kind, unit in (("loss", "nats"), ("accuracy", "fraction")):
        prefix = f"{_HELD_OUT}{kind}/"
        names = {
            name: name.removeprefix(prefix)
            for name in points
            if name.startswith(prefix) and name.count("/") == 2
        }
        charts.append(line_chart(f"held-out rows while training: {kind}", unit, points, names))
    return [chart for chart in charts if chart]


def thinned(points: Points) -> dict[str, tuple[list[float], list[float]]]:
    """Return means over equal numbers of points, so that a metric has few; bytes become GB."""
    found = {}
    for name, (steps, measured) in points.items():
        values = [value / 1e9 for value in measured] if name.endswith("_bytes") else measured
        width = -(-len(steps) // _MAX_POINTS) or 1
        cuts = range(0, len(steps), width)
        found[name] = (
            [sum(steps[i : i + width]) / len(steps[i : i + width]) for i in cuts],
            [sum(values[i : i + width]) / len(values[i : i + width]) for i in cuts],
        )
    return found
