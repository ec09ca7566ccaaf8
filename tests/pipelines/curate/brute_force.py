"""Curation by comparing every image with every other, row by row: what the stage must give."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

FLAT, LOW, PEAK = 6, 12, 0.4
"Standard deviations of gray values; largest difference of one of them."


@dataclass
class Row:
    name: str
    role: str
    sha256: str
    phash: int
    colors: np.ndarray
    gray: np.ndarray
    size: tuple[int, int]
    captions: list[str]
    reason: str | None = None
    kept: "Row | None" = None
    by_look: bool = False
    merged: list[str] = field(default_factory=list)

    @property
    def is_evaluation(self) -> bool:
        return self.role == "evaluation_sets"

    @property
    def look(self) -> tuple:
        return self.phash, self.colors.tobytes(), self.gray.tobytes(), self.size


def same(caption: str) -> str:
    return caption.strip().lower().rstrip(" .")


def fault(caption: str, params) -> str | None:
    words = caption.split()
    if not words:
        return "caption_empty"
    if len(words) < params.min_caption_words:
        return "caption_too_short"
    return "caption_too_long" if len(words) > params.max_caption_words else None


def faults(captions: Sequence[str], params) -> list[str | None]:
    result: list[str | None] = []
    for i, caption in enumerate(captions):
        found = fault(caption, params)
        before = [same(c) for c, f in zip(captions[:i], result, strict=True) if f is None]
        result.append("caption_repeated" if found is None and same(caption) in before else found)
    return result


def alike(a: Row, b: Row, params) -> bool:
    if (a.phash ^ b.phash).bit_count() > params.max_hash_distance:
        return False
    ratio = math.log(a.size[0] / a.size[1]) - math.log(b.size[0] / b.size[1])
    if abs(ratio) > math.log1p(params.max_aspect_difference):
        return False
    if np.abs(a.colors.astype(int) - b.colors.astype(int)).max() > params.max_color_difference:
        return False
    contrast = min(float(np.std(a.gray)), float(np.std(b.gray)))
    difference = a.gray.astype(float) - b.gray
    if contrast < LOW and np.abs(difference - difference.mean()).max() > PEAK * contrast:
        return False
    return float(np.std(difference)) <= params.max_detail_difference * contrast


def is_flat(row: Row) -> bool:
    return float(np.std(row.gray)) < FLAT


def curate(rows: list[Row], params, max_leaders: int) -> None:
    """Set the reason, the image kept instead, and the captions of each row."""
    for row in rows:
        if not row.is_evaluation:
            row.reason = by_itself(row, rows, params)
    for i, row in enumerate(rows):
        if row.reason is None and not row.is_evaluation:
            for other in rows[:i]:
                if other.sha256 == row.sha256 and other.reason is None:
                    row.reason, row.kept = "duplicate", other
                    break
    if params.max_hash_distance is not None:
        near(rows, params, max_leaders)
    for row in rows:
        while row.kept is not None and row.kept.kept is not None:
            row.by_look |= row.kept.by_look
            row.kept = row.kept.kept
    merge(rows, params)


def by_itself(row: Row, rows: list[Row], params) -> str | None:
    equal = [other for other in rows if other.sha256 == row.sha256]
    if any(other.is_evaluation for other in equal):
        return "evaluation_image"
    firsts = {same(other.captions[0]) for other in equal if other.captions} - {""}
    if len(firsts) >= params.min_placeholder_captions:
        return "placeholder"
    if row.role == "pairs" and None not in faults(row.captions, params):
        return "caption_length"
    if min(row.size) < params.min_original_side:
        return "small_original"
    return "aspect" if max(row.size) > params.max_aspect_ratio * min(row.size) else None


def near(rows: list[Row], params, max_leaders: int) -> None:
    left = [row for row in rows if row.reason is None]
    leaders: list[Row] = []
    crowd: list[Row] = []
    follows: dict[str, Row] = {}
    for row in left:
        mine = [other for other in leaders if other.phash == row.phash]
        if row.is_evaluation:
            if all(other.look != row.look for other in mine):
                leaders.append(row)
            continue
        found = next((other for other in mine if alike(other, row, params)), None)
        full = sum(not other.is_evaluation for other in mine) >= max_leaders
        if found is None and full:
            found = next((other for other in crowd if other.look == row.look), None)
            if found is None:
                crowd.append(row)
        elif found is None:
            leaders.append(row)
        if found is not None:
            follows[row.name] = found
    for i, row in enumerate(leaders):
        if not row.is_evaluation:
            for other in leaders[:i]:
                if other.phash == row.phash or is_flat(other) or is_flat(row):
                    continue
                if other.reason is None and alike(other, row, params):
                    drop(row, other)
                    break
    for row in left:
        if row.name in follows:
            leader = follows[row.name]
            drop(row, leader.kept or leader)


def drop(row: Row, other: Row) -> None:
    row.reason = "evaluation_image" if other.is_evaluation else "near_duplicate"
    row.kept, row.by_look = other, True


def merge(rows: list[Row], params) -> None:
    for row in rows:
        if row.role == "pairs" and row.reason is None:
            row.merged = [
                c for c, f in zip(row.captions, faults(row.captions, params), strict=True) if not f
            ]
            own = len(row.merged)
            for other in rows:
                if other.kept is not row or other.role != "pairs":
                    continue
                if other.reason not in ("duplicate", "near_duplicate"):
                    continue
                if other.by_look and not params.merge_near_duplicate_captions:
                    continue
                for caption, why in zip(
                    other.captions, faults(other.captions, params), strict=True
                ):
                    known = {same(c) for c in row.merged}
                    room = len(row.merged) < own + params.max_merged_captions
                    if why is None and same(caption) not in known and room:
                        row.merged.append(caption)
