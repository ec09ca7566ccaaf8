"""Published facts about each source's files: numbers of rows, checksums, download rates.

A file whose numbers differ may be another release, a part of one, or truncated: the report says so,
but it is never an error. A rate is the fraction of a list's URLs that gave an image. Rates fall
over the years, so each one has a date and a reference.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

PAPER_PAIRS: Final = "21M pairs over 15M images"
"Pairs that BEiT-3 was pretrained on, section 2.2 of the paper."


@dataclass(frozen=True)
class Release:
    """The published size of one file."""

    name: str
    rows: int
    "Number of lines of a list, images of an archive, or documents of a corpus."
    seen_in: str
    "Reference."
    synsets: int | None = None


@dataclass(frozen=True)
class Rate:
    """A fraction that somebody reported."""

    lowest: float
    highest: float
    when: str
    "Year, or year and month."
    of: str
    "Part of the list that the rate is about."
    seen_in: str
    "Reference."


@dataclass(frozen=True)
class Published:
    """All published facts about one source."""

    releases: tuple[Release, ...] = ()
    rates: tuple[Rate, ...] = ()
    md5: Mapping[str, str] = field(default_factory=dict)
    "File name by MD5 checksum."
    captions_per_image: float = 1
    "Mean number of captions of an image."


@dataclass(frozen=True)
class Finding:
    """The result of one comparison, as text."""

    text: str
    agrees: bool


def rate(value: float, when: str, of: str, seen_in: str, highest: float | None = None) -> Rate:
    """Return a rate that was reported as one number, or as a range."""
    return Rate(value, value if highest is None else highest, when, of, seen_in)


_SBU: Final = Published(
    releases=(Release("all", 1_000_000, "huggingface/datasets sbu_captions"),),
    rates=(rate(0.10, "2024-03", "a sample", "img2dataset#417"),),
    md5={"9aec147b3488753cf758b4d493422285": "SBUCaptionedPhotoDataset.tar.gz"},  # torchvision
)
_OWN: Final = Published(
    rates=(
        rate(0.98, "2021", "LAION-400M, for comparison", "img2dataset#6"),
        rate(0.86, "2023", "CommonPool small, for comparison", "datacomp#3, #39", highest=0.94),
        rate(0.50, "2025", "GRIT, for comparison", "img2dataset#456", highest=0.60),
    )
)

PUBLISHED: Final[Mapping[str, Published]] = {
    "cc3m": Published(
        releases=(
            Release("train", 3_318_333, "conceptual-captions README"),
            Release("validation", 15_840, "conceptual-captions README"),
        ),
        rates=(
            rate(0.92, "2019", "validation", "igorbrigadir/DownloadConceptualCaptions README"),
            rate(0.88, "2021", "train", "frozen-in-time#52: 2.92M of 3.32M"),
            rate(0.70, "2024-01", "train", "img2dataset#391"),
            rate(0.36, "2025-07", "train, a naive script", "CyCLIP#11"),
        ),
    ),
    "cc12m": Published(
        releases=(Release("all", 12_423_374, "conceptual-12m README"),),
        rates=(
            rate(0.883, "2021", "all", "open_clip README: 10,968,539 images"),
            rate(0.792, "2022-12", "all", "img2dataset#242"),
            rate(0.623, "2025-10", "all, with 3 retries", "conceptual-12m#9"),
            rate(0.637, "2026-08", "the 10,968,539 that were there in 2021", "minit2i-jax#2"),
        ),
    ),
    "sbu": _SBU,
    "sbu_json": _SBU,
    "coco": Published(
        releases=(
            Release("Karpathy's train and restval", 113_287, "dataset_coco.json"),
            Release("Karpathy's train", 82_783, "dataset_coco.json"),
            Release("Karpathy's restval", 30_504, "dataset_coco.json"),
            Release("Karpathy's val or test", 5_000, "dataset_coco.json"),
            Release("Karpathy's whole split", 123_287, "dataset_coco.json"),
        ),
        md5={  # LAVIS lavis/configs/datasets/coco
            "aa31ac474cf6250ebb81d18348a07ed8": "coco_karpathy_train.json",
            "b273847456ef5580e33713b1f7de52a0": "coco_karpathy_val.json",
            "3ff34b0ef2db02d01c37399f6a2a6cd1": "coco_karpathy_test.json",
        },
        captions_per_image=5,  # 616,767 captions of 123,287 images, dataset_coco.json
    ),
    "visual_genome": Published(
        releases=(Release("all", 108_077, "huggingface/datasets visual_genome"),),
        captions_per_image=50,  # 5.4M regions, huggingface/datasets visual_genome
    ),
    "imagenet21k": Published(
        releases=(
            Release("fall11", 14_197_122, "Alibaba-MIIL/ImageNet21K", synsets=21_841),
            Release("winter21", 13_151_276, "timm/imagenet-w21-wds", synsets=19_167),
            Release("21K-P of fall11", 11_797_632, "Alibaba-MIIL/ImageNet21K", synsets=11_221),
            Release("21K-P of winter21", 11_060_223, "Alibaba-MIIL/ImageNet21K", synsets=10_450),
        )
    ),
    "wikipedia": Published(
        releases=(Release("English, 2022-03-01", 6_458_670, "huggingface/datasets wikipedia"),)
    ),
    "openwebtext": Published(
        releases=(Release("all", 8_013_769, "huggingface/datasets openwebtext"),)
    ),
    "csv": _OWN,
    "tsv": _OWN,
    "jsonl_pairs": _OWN,
    "parquet_pairs": _OWN,
}
"Facts by the format of a source."

HASH_DRIFT: Final = (
    rate(0.85, "2023", "LAION-5B after eight months", "img2dataset laion5B.md"),
    rate(0.86, "2023", "DataComp", "datacomp#67"),
)
"Fractions of images whose bytes still had the list's digest."


def published(form: str) -> Published:
    """Return the facts about a format; none for a format that is not in the table."""
    return PUBLISHED.get(form, Published())


def nearest_release(form: str, *, rows: int = 0, synsets: int = 0) -> Release | None:
    """Return the release that what was found is likest to, by synsets where they are known.

    What differs by more than a factor of two from all of them is none of them.
    """
    sizes = {
        release: _distance(release.synsets, synsets)
        if release.synsets is not None and synsets
        else _distance(release.rows, rows)
        for release in published(form).releases
    }
    nearest = min(sizes, key=lambda release: sizes[release], default=None)
    return nearest if nearest is not None and sizes[nearest] <= math.log(2) else None


def compare(form: str, *, rows: int = 0, synsets: int = 0, md5: str | None = None) -> list[Finding]:
    """Compare counts with the published ones; an argument of 0 or None is not compared."""
    findings = []
    release = nearest_release(form, rows=rows, synsets=synsets)
    if release is None and rows and (known := published(form).releases):
        sizes = ", ".join(f"{each.rows:,} ({each.name})" for each in known)
        findings.append(Finding(f"{rows:,} rows, published: {sizes}", agrees=False))
    if release is not None and rows:
        findings.append(_counted(rows, release.rows, "rows", release.name))
    if release is not None and synsets and release.synsets is not None:
        findings.append(_counted(synsets, release.synsets, "synsets", release.name))
    if md5 is not None:
        findings += _checksums(published(form).md5, md5)
    return findings


def file_md5(path: Path) -> str:
    """Return the hexadecimal MD5 checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def rate_words(share: Rate) -> str:
    """Return a rate as people write it: ``62.3%``, or ``50-60%``."""
    first, last = (f"{100 * number:.3g}" for number in (share.lowest, share.highest))
    return f"{first}%" if first == last else f"{first}-{last}%"


def _counted(found: int, expected: int, unit: str, name: str) -> Finding:
    if found == expected:
        return Finding(f"{found:,} {unit}, as published ({name})", agrees=True)
    return Finding(f"{found:,} {unit}, published: {expected:,} ({name})", agrees=False)


def _checksums(known: Mapping[str, str], found: str) -> Sequence[Finding]:
    if not known:
        return []
    if found in known:
        return [Finding(f"MD5 {found}, as published ({known[found]})", agrees=True)]
    names = ", ".join(known.values())
    return [Finding(f"MD5 {found}, differs from the published one of {names}", agrees=False)]


def _distance(one: int, other: int) -> float:
    return abs(math.log(max(one, 1) / max(other, 1)))
