"""Rules of curation that drop a large part of a source, which often means that a limit is wrong."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from orchestration import Context, Dataset

logger = logging.getLogger(__name__)

FIELDS: Final[Mapping[str, str]] = {
    "evaluation_image": "evaluation_sets",
    "placeholder": "curate.min_placeholder_captions",
    "caption_length": "curate.min_caption_words, curate.max_caption_words",
    "small_original": "curate.min_original_side",
    "aspect": "curate.max_aspect_ratio",
    "duplicate": "the order of sources",
    "near_duplicate": "curate.max_hash_distance",
}
"Fields of the recipe that decide on each reason."
_LARGE_FRACTION: Final = 0.1
_READ_ROWS: Final = 1 << 20


@dataclass(frozen=True)
class LargeDrop:
    """Rows of one source that one rule drops."""

    source: str
    reason: str
    rows: int
    fraction: float
    "Of all images of the source."
    fields: str
    "Fields of the recipe that decide."

    @property
    def words(self) -> str:
        """The drop in one sentence."""
        return (
            f"{self.reason} dropped {self.fraction:.1%} of {self.source} ({self.rows} images); "
            f"see {self.fields}"
        )


def large_drops(source: str, num_rows: int, drops: Mapping[str, int]) -> Iterator[LargeDrop]:
    """Yield the rules that drop more than a tenth of a source, the largest drop first.

    Args:
        source: name of the source.
        num_rows: number of its images.
        drops: number of dropped images by reason.
    """
    for reason, rows in sorted(drops.items(), key=lambda drop: (-drop[1], drop[0])):
        if rows > _LARGE_FRACTION * num_rows:
            yield LargeDrop(source, reason, rows, rows / num_rows, FIELDS[reason])


def count_drops(rejects: Dataset) -> dict[str, Counter[str]]:
    """Count the rejects of curation by source and reason."""
    drops: dict[str, Counter[str]] = {}
    for start in range(0, rejects.num_rows, _READ_ROWS):
        table = rejects.read(start, start + _READ_ROWS, ["source", "reason"])
        counted = table.group_by(["source", "reason"]).aggregate([([], "count_all")])
        for row in counted.to_pylist():
            drops.setdefault(row["source"], Counter())[row["reason"]] += row["count_all"]
    return drops


def report_large_drops(context: Context) -> None:
    """Show and log the large drops of a curation that is committed."""
    drops = count_drops(Dataset.open(context.folder, "rejects"))
    for role in ("pairs", "images"):
        names = context.stage.inputs[role]
        for name, dataset in zip(names, context.inputs(role), strict=True):
            source = name.rpartition("/")[2]
            for drop in large_drops(source, dataset.num_rows, drops.get(source, {})):
                context.progress.remark(drop.words)
                logger.warning("%s: %s", context.stage.name, drop.words)
