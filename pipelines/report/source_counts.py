"""The numbers of the data_report report.

Counts of rows and reasons come from manifests; the rest from columns (``column_counts``).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from dataprep.sources.published import HASH_DRIFT, Finding, Rate, compare, published
from orchestration import Dataset
from orchestration.reporting.usage import read_usage
from pipelines.report.column_counts import (
    STORED,
    HostReport,
    ImageCounts,
    count_drops,
    count_hosts,
    count_images,
)

Role = Literal["images", "evaluation_sets", "documents"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)


@dataclass(frozen=True)
class Source:
    """The committed stages of one source."""

    name: str
    stages: Mapping[str, Dataset]
    "By name, in the order of the data."
    role: Role

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
    """What became of some rows."""

    reason: str
    rows: int
    share: float


@dataclass(frozen=True)
class StageWork:
    """What one stage did."""

    stage: str
    rows_in: int
    rows_out: int
    bytes: int
    seconds: float
    rows_per_second: float | None


@dataclass(frozen=True)
class SourceReport:
    """What one source gave."""

    name: str
    form: str
    rows: int
    "Of the list, the archive or the corpus."
    tried: int
    "That its last stage was given."
    stored: int
    success_rate: float | None
    "Stored of tried."
    findings: tuple[Finding, ...]
    outcomes: tuple[Outcome, ...]
    "Of all rows; they sum up to them."
    rates: tuple[Rate, ...]
    stages: tuple[StageWork, ...]
    images: ImageCounts | None
    hosts: HostReport | None


@dataclass(frozen=True)
class CuratedSource:
    """What curation did with the images of a source."""

    name: str
    rows: int
    kept: int
    drops: Mapping[str, int]


@dataclass(frozen=True)
class Report:
    """All numbers of the report."""

    sources: tuple[SourceReport, ...]
    curation: tuple[CuratedSource, ...]
    reasons: tuple[str, ...]
    "Of curation, most frequent first."
    hash_drift: tuple[Rate, ...] = HASH_DRIFT


def count(sources: Sequence[Source], curated: Dataset, num_hosts: int) -> Report:
    """Count everything."""
    drops = count_drops(curated.table("rejects"))
    reasons: Counter[str] = sum(drops.values(), Counter())
    curation = []
    for source in sources:
        if source.role == "images":
            mine, rows = drops.get(source.name, Counter()), source.last.num_rows
            curation.append(CuratedSource(source.name, rows, rows - mine.total(), dict(mine)))
    return Report(
        sources=tuple(count_source(source, num_hosts) for source in sources),
        curation=tuple(curation),
        reasons=tuple(sorted(reasons, key=lambda reason: (-reasons[reason], reason))),
    )


def count_source(source: Source, num_hosts: int) -> SourceReport:
    """Count the outcomes of a source, and look at its images if it has some."""
    manifests = [dataset.manifest for dataset in source.stages.values()]
    form = str(manifests[0].params.get("format", ""))
    rows, tried = manifests[0].num_rows_in, manifests[-1].num_rows_in
    stored = source.last.num_rows
    rejects: Counter[str] = sum((m.rejects for m in manifests), Counter())
    synsets = len(manifests[0].parts) if form == "imagenet21k" else 0
    hosts = count_hosts(source.last, num_hosts) if source.has_images else None
    return SourceReport(
        name=source.name,
        form=form,
        rows=rows,
        tried=tried,
        stored=stored,
        success_rate=stored / tried if tried else None,
        findings=(
            *compare(form, rows=rows, synsets=synsets),
            *_checksum(manifests[0].numbers.get("published_checksum")),
        ),
        outcomes=outcomes(stored, rejects, rows),
        rates=published(form).rates,
        stages=tuple(_work(name, dataset) for name, dataset in source.stages.items()),
        images=count_images(source.last) if source.has_images else None,
        hosts=hosts if hosts is not None and hosts.num_hosts else None,
    )


def outcomes(stored: int, rejects: Counter[str], rows: int) -> tuple[Outcome, ...]:
    """Return what is there, then the reasons for what is not, most frequent first."""
    reasons = sorted(rejects, key=lambda reason: (-rejects[reason], reason))
    counts = [(STORED, stored), *((reason, rejects[reason]) for reason in reasons)]
    return tuple(Outcome(name, number, number / max(rows, 1)) for name, number in counts)


def numbers_of(report: Report) -> dict[str, float]:
    """Return the numbers that the manifest and MLflow keep."""
    numbers: dict[str, float] = {}
    for source in report.sources:
        numbers[f"rows/{source.name}"] = source.rows
        numbers[f"stored/{source.name}"] = source.stored
        if source.success_rate is not None:
            numbers[f"success_rate/{source.name}"] = source.success_rate
        if source.images is not None and (digests := source.images.digests):
            share = digests.same / (digests.same + digests.other)
            numbers[f"same_digest/{source.name}"] = share
    for curated in report.curation:
        numbers |= {f"drops/{reason}/{curated.name}": n for reason, n in curated.drops.items()}
    return numbers


def _checksum(is_published: float | None) -> list[Finding]:
    if is_published is None:
        return []
    words = "MD5 as published" if is_published else "its MD5 is none of those published"
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
