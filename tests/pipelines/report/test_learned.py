"""What a pretraining has learned, as its summary shows it."""

import pytest
from rich.console import Console

from pipelines.report.learned import baselines_table, gap_lines, learned_table

NUMBERS = {
    "accuracy/knn": 0.557,
    "accuracy/knn/untrained": 0.494,
    "accuracy/knn/pixels": 0.481,
    "baseline_accuracy/knn": 0.101,
    "accuracy/word_order": 0.53,
    "accuracy/word_order/pieces": 0.505,
    "baseline_accuracy/word_order": 0.511,
    "retrieval/tuned_heads/num_pairs": 75,
    "retrieval/tuned_heads/image_to_text/recall_at_1": 0.387,
    "retrieval/tuned_heads_untrained/image_to_text/recall_at_1": 0.253,
    "retrieval/tuned_heads_pixels_and_pieces/image_to_text/recall_at_1": 0.187,
    "retrieval/tuned_heads/chance/recall_at_1": 0.0133,
    "grounding/words/gap": 0.213,
    "grounding/words/gap_low": 0.1801,
    "grounding/words/gap_high": 0.2449,
    "grounding/words/control": -0.004,
    "grounding/words/control_low": -0.03,
    "grounding/words/control_high": 0.019,
}


def printed(what) -> str:
    console = Console(width=140)
    with console.capture() as captured:
        console.print(what)
    return captured.get()


@pytest.mark.parametrize(
    ("row", "values"),
    [
        ("k-NN: labels of images", ["55.7%", "49.4%", "48.1%", "10.1%"]),
        ("linear probe: word order of texts", ["53.0%", "", "50.5%", "51.1%"]),
        ("R@1: features with tuned heads", ["38.7%", "25.3%", "18.7%", "1.3%"]),
    ],
)
def test_each_number_stands_beside_its_baselines(row, values):
    (line,) = [line for line in printed(baselines_table(NUMBERS)).splitlines() if row in line]
    assert [cell.strip() for cell in line.split("│")[2:-1]] == values


def test_what_was_not_measured_has_no_row():
    shown = printed(baselines_table(NUMBERS))
    assert "zero" not in shown and "source of texts" not in shown
    assert "MLM" not in printed(learned_table(NUMBERS))


def test_the_gap_stands_with_its_interval_and_its_control():
    (line,) = gap_lines(NUMBERS)
    assert "masked words: +21.3 points (+18.0 to +24.5)" in line
    assert "two wrong ones: -0.4 points (-3.0 to +1.9)" in line
