"""The split of a token dataset into rows to train on and held-out rows for evaluation.

A row of a source that is held out as a whole (``held_out: true``) is held out; else the split that
its list gives it (``split_column``) counts; else its group is held out with the probability
``fraction``. The group is the list's (``group_column``), else what ``held_out_by`` names: the
first caption, or the original image. An image without captions and a document are their own group.

The side of a group is a function of the seed and the group alone: it does not depend on other rows,
their order, or the number of workers, and rows of one group are on one side. An image with several
captions can have some of them on each side. With ``held_out_by: caption`` it therefore keeps only
the captions of the side that its first caption is on. Captions are equal if their words are: case,
spaces and punctuation, in which lists differ, do not count.
"""

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

HeldOutBy = Literal["image", "caption"]
Kind = Literal["group", "image", "caption", "document"]
COLUMNS: Final = ("sha256", "captions", "held_out", "group")
"Columns of the images table that decide on which side an image is."
_WORD: Final = re.compile(r"\w+")


def is_held_out(kind: Kind, group: str, fraction: float, seed: int) -> bool:
    """Return whether a group is held out, for an expected ``fraction`` of all groups."""
    digest = hashlib.sha256(f"held_out/{seed}/{kind}/{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def caption_words(caption: str) -> str:
    """Return the words of a caption, by which two captions are equal; without any, the caption."""
    text = unicodedata.normalize("NFKC", caption).casefold()
    return " ".join(_WORD.findall(text)) or text.strip()


@dataclass(frozen=True)
class Split:
    """How images or pairs are split."""

    fraction: float
    "Expected fraction of groups that are held out."
    seed: int
    "Seed of the recipe."
    by: HeldOutBy = "image"
    "What makes a group where the list names none."

    def held_out(self, rows: pa.Table, whole: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which images are held out.

        Args:
            rows: N images with the columns ``COLUMNS``.
            whole: (N,), images of sources that are held out as a whole.
        """
        columns = (rows[name].to_pylist() for name in COLUMNS)
        given = np.array([self._is_held_out(*row) for row in zip(*columns, strict=True)], bool)
        return whole | given

    def _is_held_out(
        self, sha256: str, captions: list[str], held_out: bool | None, group: str | None
    ) -> bool:
        if held_out is not None:
            return held_out
        if group is not None:
            return is_held_out("group", group, self.fraction, self.seed)
        if self.by == "caption" and captions:
            return self.caption_is_held_out(captions[0])
        return is_held_out("image", sha256, self.fraction, self.seed)

    def caption_is_held_out(self, caption: str) -> bool:
        """Return on which side a caption is."""
        return is_held_out("caption", caption_words(caption), self.fraction, self.seed)

    def captions_of_sides(
        self, rows: pa.Table, whole: NDArray[np.bool_]
    ) -> tuple[list[list[str]], int]:
        """Return the captions that each image keeps, and how many were dropped.

        The arguments are those of :meth:`held_out`. A caption is dropped if it is on the other side
        than its image; an image whose side the recipe, the list or a group gives keeps all.
        """
        columns: list[list[Any]] = [rows[name].to_pylist() for name in COLUMNS]
        all_captions = columns[1]
        if self.by != "caption":
            return all_captions, 0
        kept, num_dropped = [], 0
        for _, captions, held_out, group, whole_source in zip(*columns, whole, strict=True):
            if held_out is None and group is None and not whole_source:
                side = self.caption_is_held_out(captions[0])
                mine = [text for text in captions if self.caption_is_held_out(text) == side]
            else:
                mine = captions
            num_dropped += len(captions) - len(mine)
            kept.append(mine)
        return kept, num_dropped
