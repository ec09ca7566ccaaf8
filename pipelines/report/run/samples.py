"""Held-out samples with what the network predicted of them, as the stage ``evaluate`` kept them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestration import Dataset
from pipelines.pretrain.evaluation import shown
from pipelines.report.contact_sheets import jpeg_uri
from pipelines.report.predicted import clipped


@dataclass(frozen=True)
class ShownImage:
    """One image with masked patches; images are data URIs, the caption is untrusted text."""

    id: str
    caption: str
    crop: str
    masked: str
    target: str
    "Codes drawn by their mean patches; empty where pixels are predicted."
    predicted: str
    attention: str
    num_masked: int
    num_correct: int | None
    num_correct_other: int | None


@dataclass(frozen=True)
class Piece:
    """A piece of a caption, untrusted text."""

    text: str
    is_masked: bool


@dataclass(frozen=True)
class MaskedWord:
    """The predictions of one masked piece: (piece, probability), the most likely first."""

    answer: str
    columns: Sequence[Sequence[tuple[str, float]]]
    "With the own image, with that of another pair, and without an image."
    attention: str
    "Data URI; empty of all but the first few."


@dataclass(frozen=True)
class ShownCaption:
    """A caption with masked pieces, its image and that of another pair."""

    id: str
    other_id: str
    crop: str
    other_crop: str
    pieces: Sequence[Piece]
    words: Sequence[MaskedWord]


def shown_images(evaluation: Dataset) -> list[ShownImage]:
    """Return the images of an evaluation whose masked patches were predicted."""
    return [
        ShownImage(
            id=row["sample_id"],
            caption=clipped(row["caption"] or ""),
            crop=_uri(row["crop"]),
            masked=_uri(row["masked"]),
            target=_uri(row["target"]),
            predicted=_uri(row["predicted"]),
            attention=_uri(row["attention"]),
            num_masked=row["num_masked"],
            num_correct=row["num_correct"],
            num_correct_other=row["num_correct_other"],
        )
        for row in _rows(evaluation, shown.IMAGES)
    ]


def shown_captions(evaluation: Dataset) -> list[ShownCaption]:
    """Return the captions of an evaluation whose masked words were predicted."""
    found = []
    for row in _rows(evaluation, shown.WORDS):
        masked = {word["position"] for word in row["words"]}
        found.append(
            ShownCaption(
                row["sample_id"],
                row["other_id"],
                _uri(row["crop"]),
                _uri(row["other_crop"]),
                [Piece(_readable(p), i in masked) for i, p in enumerate(row["pieces"])],
                [_word(word, row["pieces"]) for word in row["words"]],
            )
        )
    return found


def _word(word: Mapping[str, Any], pieces: Sequence[str]) -> MaskedWord:
    columns = [
        [(_readable(each["piece"]), each["probability"]) for each in word[name]]
        for name in ("right", "other", "none")
    ]
    answer = _readable(pieces[word["position"]])
    return MaskedWord(answer, columns, _uri(word["attention"]))


def _readable(piece: str) -> str:
    """Return a piece with a plain space where SentencePiece writes a block, if it is not alone."""
    return piece if piece == "▁" else clipped(piece.replace("▁", " "))


def _uri(jpeg: bytes | None) -> str:
    return "" if jpeg is None else jpeg_uri(jpeg)


def _rows(evaluation: Dataset, table: str) -> list[dict[str, Any]]:
    if table not in evaluation.manifest.columns:
        return []
    rows: list[dict[str, Any]] = evaluation.table(table).read().to_pylist()
    return rows
