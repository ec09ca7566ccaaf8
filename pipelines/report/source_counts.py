"""The numbers of the data report, as dataclasses.

Counts of rows and reasons come from manifests, the rest from columns (``column_counts``).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from dataprep.sources.published import HASH_DRIFT, PAPER_PAIRS, Finding, Rate, compare, published
from orchestration import Dataset
from orchestration.reporting.usage import read_usage
from pipelines.curate.large_drops import LargeDrop, count_drops, large_drops
from pipelines.report.column_counts import (
    STORED,
    HostReport,
    ImageCounts,
    count_hosts,
    count_images,
)
from pipelines.report.held_out_counts import HeldOutCount, Splits, count_held_out
from pipelines.report.pair_counts import PairCount, count_pairs

Role = Literal["images", "evaluation_sets", "documents"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)


@dataclass(frozen=True)
class SourceStages:
    """The committed stages of one source."""

    name: str
    stages: Mapping[str, Dataset]
    "Outputs by stage name, from the list to the images."
    role: Role
    "Input of the report to which the last stage belongs."
    held_out: bool = False
    "Whether the recipe holds the source out as a whole."

    @property
    def has_images(self) -> bool:
        """Whether its rows are images."""
        return self.role != "documents"

    @property
    def last(self) -> Dataset:
        """Its images or documents."""
        return list(self.stages.values())[-1]


@dataclass(frozen=True)
class Outcome:
    """How some rows of a source ended."""

    reason: str
    "Reason of a reject, or ``stored``."
    rows: int
    fraction: float
    "Of all rows of the source."


@dataclass(frozen=True)
class StageWork:
    """Work and time of one stage."""

    stage: str
    rows_in: int
    rows_out: int
    bytes: int
    seconds: float
    rows_per_second: float | None


@dataclass(frozen=True)
class SourceReport:
    """The numbers of one source."""

    name: str
    format: str
    rows: int
    "Rows of the list, images of the archive, or documents of the corpus."
    tried: int
    "Rows that the last stage read."
    stored: int
    "Rows that the last stage wrote."
    success_rate: float | None
    "``stored / tried``; None if nothing was tried."
    findings: tuple[Finding, ...]
    "Comparison with the published files."
    outcomes: tuple[Outcome, ...]
    "Partition of ``rows``."
    rates: tuple[Rate, ...]
    "Success rates that others reported."
    stages: tuple[StageWork, ...]
    images: ImageCounts | None
    hosts: HostReport | None


@dataclass(frozen=True)
class CuratedSource:
    """Rows of a source before and after curation."""

    name: str
    rows: int
    kept: int
    drops: Mapping[str, int]
    "Dropped rows by reason."
    large_drops: tuple[LargeDrop, ...]
    "Rules that drop more than a tenth of the rows."


@dataclass(frozen=True)
class Report:
    """All numbers of the report."""

    sources: tuple[SourceReport, ...]
    curation: tuple[CuratedSource, ...]
    reasons: tuple[str, ...]
    "Reasons of curation, most frequent first."
    captions: Mapping[str, int]
    "Captions that curation merged, and those it dropped by reason."
    kept_by_detail: int
    "Images that are no near duplicates because of their details alone."
    without_structure: int
    "Images with too little contrast for a search by their hash."
    pairs: tuple[PairCount, ...]
    "Images with captions that curation kept, and their captions, by source."
    held_out: tuple[HeldOutCount, ...]
    "Kept rows that will be held out from training, by source."
    paper_pairs: str = PAPER_PAIRS
    hash_drift: tuple[Rate, ...] = HASH_DRIFT


def count(
    sources: Sequence[SourceStages], curated: Dataset, num_hosts: int, splits: Splits
) -> Report:
    """Count the outcomes of every source, what curation dropped, and what is held out."""
    drops = count_drops(curated.table("rejects"))
    reasons: Counter[str] = sum(drops.values(), Counter())
    curation = []
    for source in sources:
        if source.role == "images":
            mine, rows = drops.get(source.name, Counter()), source.last.num_rows
            large = tuple(large_drops(source.name, rows, mine))
            kept = rows - mine.total()
            curation.append(CuratedSource(source.name, rows, kept, dict(mine), large))
    images, documents = (
        {source.name: source.last for source in sources if source.role == role}
        for role in ("images", "documents")
    )
    return Report(
        sources=tuple(count_source(source, num_hosts) for source in sources),
        curation=tuple(curation),
        reasons=tuple(sorted(reasons, key=lambda reason: (-reasons[reason], reason))),
        captions={key: n for key, n in curated.manifest.counters.items() if n},
        kept_by_detail=int(curated.manifest.numbers.get("images_kept_by_detail", 0)),
        without_structure=int(curated.manifest.numbers.get("images_without_structure", 0)),
        pairs=count_pairs(curated, list(images)),
        held_out=count_held_out(
            curated,
            images,
            documents,
            {source.name for source in sources if source.held_out},
            splits,
        ),
    )


def count_source(source: SourceStages, num_hosts: int) -> SourceReport:
    """Count the outcomes of a source, and the sizes and hosts of its images."""
    manifests = [dataset.manifest for dataset in source.stages.values()]
    format_ = str(manifests[0].params.get("format", ""))
    rows, tried = manifests[0].num_rows_in, manifests[-1].num_rows_in
    stored = source.last.num_rows
    rejects: Counter[str] = sum((m.rejects for m in manifests), Counter())
    synsets = int(manifests[0].numbers.get("num_synsets", 0))
    hosts = count_hosts(source.last, num_hosts) if source.has_images else None
    return SourceReport(
        name=source.name,
        format=format_,
        rows=rows,
        tried=tried,
        stored=stored,
        success_rate=stored / tried if tried else None,
        findings=(
            *compare(format_, rows=rows, synsets=synsets),
            *_checksum(manifests[0].numbers.get("published_checksum")),
        ),
        outcomes=outcomes(stored, rejects, rows),
        rates=published(format_).rates,
        stages=tuple(_work(name, dataset) for name, dataset in source.stages.items()),
        images=count_images(source.last) if source.has_images else None,
        hosts=hosts if hosts is not None and hosts.num_hosts else None,
    )


def outcomes(stored: int, rejects: Counter[str], rows: int) -> tuple[Outcome, ...]:
    """Return the stored rows, then the rejects by reason, most frequent first."""
    reasons = sorted(rejects, key=lambda reason: (-rejects[reason], reason))
    counts = [(STORED, stored), *((reason, rejects[reason]) for reason in reasons)]
    return tuple(Outcome(name, number, number / max(rows, 1)) for name, number in counts)


def numbers_of(report: Report) -> dict[str, float]:
    """Return the numbers for the manifest and MLflow."""
    numbers: dict[str, float] = {}
    for source in report.sources:
        numbers[f"rows/{source.name}"] = source.rows
        numbers[f"stored/{source.name}"] = source.stored
        if source.success_rate is not None:
            numbers[f"success_rate/{source.name}"] = source.success_rate
        if source.images is not None and (digests := source.images.digests):
            known = digests.same + digests.other
            numbers[f"same_digest/{source.name}"] = digests.same / known
    for curated in report.curation:
        numbers |= {f"drops/{reason}/{curated.name}": n for reason, n in curated.drops.items()}
    for of_source in report.pairs:
        numbers |= {
            f"pairs/{of_source.source}": of_source.pairs,
            f"images_with_captions/{of_source.source}": of_source.images,
        }
    numbers |= {f"held_out/{count.source}": count.held_out for count in report.held_out}
    return numbers


def _checksum(is_published: float | None) -> list[Finding]:
    if is_published is None:
        return []
    words = "the MD5 is a published one" if is_published else "the MD5 is not a published one"
    return [Finding(words, bool(is_published))]


def _work(stage: str, dataset: Dataset) -> StageWork:
    manifest = dataset.manifest
    seconds = read_usage(dataset.folder).seconds
    return StageWork(
        stage,
        rows_in=manifest.num_rows_in,
        rows_out=dataset.num_rows,
        bytes=manifest.num_bytes,
        seconds=seconds,
        rows_per_second=manifest.num_rows_in / seconds if seconds else None,
    )
