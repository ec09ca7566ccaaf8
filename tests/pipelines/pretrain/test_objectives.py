"""A line added to the table of objectives appears in recipe, evaluation, figure and summary."""

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from model.training import objectives
from pipelines.pretrain.evaluation.masked import masked_numbers
from pipelines.pretrain.loss_figure import draw_losses
from pipelines.pretrain.pretrain import Params
from pipelines.report.learned import learned_table
from tests.model.test_objectives import ADDED


@pytest.fixture(autouse=True)
def _added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objectives, "OBJECTIVES", (*objectives.OBJECTIVES, ADDED))


def test_it_has_a_loss_weight():
    assert Params().loss_weights["again"] == 1.0
    assert Params(loss_weights={"again": 0.5}).loss_weights == {
        "mlm": 1.0,
        "mim": 1.0,
        "mvlm_text": 1.0,
        "mvlm_image": 1.0,
        "again": 0.5,
    }


def test_it_is_evaluated_and_summarized():
    row = {"source": "coco", "loss_sum": 4.0, "num_correct": 1, "targets": [5, 5, 5, 7]}
    table = pa.Table.from_pylist([{"objective": name, **row} for name in ("mlm", "again")])
    numbers = masked_numbers(table)
    assert numbers["loss/again"] == 1.0
    assert numbers["accuracy/again"] == 0.25
    assert numbers["baseline_accuracy/again"] == 0.75
    assert numbers["baseline_loss/again"] == pytest.approx(
        -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    )
    console = Console(width=120)
    with console.capture() as captured:
        console.print(learned_table(numbers))
    assert ADDED.title in captured.get()


def test_it_is_drawn_in_its_color(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    drawn: list[tuple[str, str]] = []
    plot = Axes.plot

    def note(self, *arguments, **options):
        drawn.append((options.get("label", ""), options["color"]))
        return plot(self, *arguments, **options)

    monkeypatch.setattr(Axes, "plot", note)
    points = {"loss/again": ([1, 2], [1.0, 1.0]), "accuracy/again": ([1, 2], [0.5, 0.5])}
    draw_losses(points, tmp_path / "losses.png")
    assert (ADDED.title, ADDED.color) in drawn
    assert (tmp_path / "losses.png").stat().st_size > 0
