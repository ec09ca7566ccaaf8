"""A report as one HTML file.

Captions and host names come from strangers: the templates escape every value, the page links to
nothing outside itself, and its content security policy forbids scripts.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dataprep.sources.published import rate_words
from orchestration.reporting.results import human_bytes, human_seconds
from pipelines.report.column_counts import Bar
from pipelines.report.learned import percent
from pipelines.report.scores import decimal

_TEMPLATES: Final = Path(__file__).parent / "templates"
_BAR_WIDTH: Final = 14
_BAR_HEIGHT: Final = 64


def render(template: str, **values: Any) -> str:
    """Return a template of ``templates/`` filled with values.

    Raises:
        jinja2.UndefinedError: the template names a value that is not given.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": "{:,}".format,
        "decimal": decimal,
        "percent": percent,
        "points": "{:.2f}".format,
        "hours": hours,
        "size": human_bytes,
        "time": human_seconds,
        "rate": rate_words,
        "heights": heights,
    }
    environment.globals |= {"bar_width": _BAR_WIDTH, "bar_height": _BAR_HEIGHT}
    return environment.get_template(template).render(values)


def hours(number: float | None) -> str:
    """Return GPU hours for display; a dash if they are not known."""
    return "–" if number is None else f"{number:,.2f}" if number else "0"


def heights(bars: Sequence[Bar]) -> list[tuple[Bar, float]]:
    """Return each bar of a histogram with its height in pixels; only an empty bar has none."""
    tallest = max((bar.rows for bar in bars), default=0)
    return [
        (bar, max(round(_BAR_HEIGHT * bar.rows / tallest, 1), 1.0) if bar.rows else 0.0)
        for bar in bars
    ]
