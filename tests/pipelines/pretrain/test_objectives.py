"""A line added to the table of objectives appears in recipe, evaluation, figure and summary."""

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from model.training import objectives
from pipelines.pretrain.evaluation.masked import SCHEMA, masked_numbers
from pipelines.pretrain.loss_figure import draw_losses
from pipelines.pretrain.pretrain import Params
from pipelines.report.learned import learned_table
from tests.model.test_objectives import ADDED


@pytest.fixture(autouse=True)
def _added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objectives, "OBJECTIVES", (*objectives.OBJECTIVES, ADDED))


def test_it_has_a_loss_weight():
    others = {objective.name: 1.0 for objective in objectives.OBJECTIVES if objective is not ADDED}
    assert Params().loss_weights == {**others, "again": 1.0}
    assert Params(loss_weights={"again": 0.5}).loss_weights == {**others, "again": 0.5}


def test_values_are_evaluated_beside_the_guess_of_zero_and_have_no_accuracy():
    rows = [
        {"objective": "mim_pixels", "source": source, "loss_sum": loss, "num_targets": 4,
         "num_correct": None, "targets": None, "square_sum": 3.9}
        for source, loss in (("coco", 2.0), ("sbu", 1.0))
    ]  # fmt: skip
    numbers = masked_numbers(pa.Table.from_pylist(rows, SCHEMA))
    assert numbers["loss/mim_pixels"] == 3 / 8
    assert numbers["loss/mim_pixels/sbu"] == 1 / 4
    assert numbers["baseline_loss/mim_pixels"] == pytest.approx(3.9 / 4)
    assert not any("accuracy" in name for name in numbers)
    console = Console(width=120)
    with console.capture() as captured:
        console.print(learned_table(numbers))
    (line,) = [row for row in captured.get().splitlines() if "pixels of images" in row]
    assert [cell.strip() for cell in line.split("│")[2:-1]] == ["8", "0.375", "0.975", "", ""]


def test_it_is_evaluated_and_summarized():
    row = {
        "source": "coco",
        "loss_sum": 4.0,
        "num_correct": 1,
        "num_targets": 4,
        "targets": [5, 5, 5, 7],
    }
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
