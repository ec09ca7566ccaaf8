"""The page of the data_report report.

Captions and hosts are text of strangers: the template escapes every value, the page names no
address outside itself, and its policy forbids scripts.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dataprep.sources.published import rate_words
from orchestration.reporting.summary import human_bytes, human_seconds
from pipelines.report.column_counts import Bar
from pipelines.report.contact_sheets import Sheets
from pipelines.report.source_counts import Report

_TEMPLATES: Final = Path(__file__).parent / "templates"
_BAR_WIDTH: Final = 14
_BAR_HEIGHT: Final = 64


def page(report: Report, sheets: Sheets) -> str:
    """Return the report as one HTML file."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": "{:,}".format,
        "percent": "{:.1%}".format,
        "size": human_bytes,
        "time": human_seconds,
        "rate": rate_words,
        "heights": heights,
    }
    template = environment.get_template("data_report.html")
    return template.render(
        report=report, sheets=sheets, bar_width=_BAR_WIDTH, bar_height=_BAR_HEIGHT
    )


def heights(bars: Sequence[Bar]) -> list[tuple[Bar, float]]:
    """Return each bar of a histogram with its height; what is not empty can be seen."""
    tallest = max((bar.rows for bar in bars), default=0)
    return [
        (bar, max(round(_BAR_HEIGHT * bar.rows / tallest, 1), 1.0) if bar.rows else 0.0)
        for bar in bars
    ]
