"""Metrics of captions, by the scorers of ``pycocoevalcap``.

The published ones (BLEU, ROUGE-L, CIDEr, METEOR, SPICE) are of captions that the Penn Treebank
tokenizer split, which runs in Java (``caption_java.py``); they are named ``cider``, ``bleu_4``, ….

``own_tokens/cider`` and ``own_tokens/bleu_4`` are of lower-case words without punctuation, split in
Python. They differ slightly from the published ones and never stand in their place. They are the
same on every machine, hence the best weights are chosen by them.

CIDEr weights words by how few images have them, so of one image it is 0 by construction: it is
left out.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dataprep.tasks.nocaps import DOMAINS
from pipelines.finetune import caption_java
from pipelines.finetune.caption_java import JavaError

OWN: Final = "own_tokens"
PUBLISHED_NAMES: Final = (
    *("cider", "bleu_1", "bleu_2", "bleu_3", "bleu_4"),
    *("rouge_l", "meteor", "spice"),
)
_OWN_NAMES: Final = ("cider", "bleu_4")
NAMES: Final = (
    *PUBLISHED_NAMES,
    *(f"{domain}/cider" for domain in DOMAINS),
    *(f"{OWN}/{name}" for name in _OWN_NAMES),
)
"The metrics that a split may have; those of domains are NoCaps's."
_ONE_IMAGE: Final = "of one image CIDEr is 0 by construction"
_JOINTS: Final = "'’-"
"Signs that may stand within a word."
_WORD: Final = re.compile(rf"[^\s{_JOINTS}]+(?:[{_JOINTS}][^\s{_JOINTS}]+)*")
"Of a text with spaces for all that belongs to no word."


@dataclass(frozen=True)
class Captions:
    """Captions of some images and their references, split into tokens joined by spaces."""

    captions: Sequence[str]
    "(N,), one for each image."
    references: Sequence[Sequence[str]]
    "(N, at least one), the annotated captions of each image."

    def of(self, rows: Sequence[int]) -> "Captions":
        """Return the captions of some images."""
        return Captions([self.captions[i] for i in rows], [self.references[i] for i in rows])

    def most_frequent(self) -> "Captions":
        """Return the most frequent reference for each image; of equally frequent ones the first."""
        counts = Counter(text for some in self.references for text in some)
        return Captions([counts.most_common(1)[0][0]] * len(self.captions), self.references)

    def cider(self) -> float | None:
        """Return CIDEr-D in 0-10; None of fewer than two images."""
        from pycocoevalcap.cider.cider import Cider

        if len(self.captions) < 2:
            return None
        if not any(text for some in self.references for text in some):
            return 0.0  # the scorer needs a word
        return float(Cider().compute_score(*self.numbered)[0])

    def bleus(self) -> list[float]:
        """Return BLEU of 1 to 4 words, of the whole set."""
        from pycocoevalcap.bleu.bleu import Bleu

        found, _ = Bleu().compute_score(*self.numbered, verbose=0)
        return [float(value) for value in found]

    def rouge_l(self) -> float:
        """Return ROUGE-L."""
        from pycocoevalcap.rouge.rouge import Rouge

        return float(Rouge().compute_score(*self.numbered)[0])

    @property
    def numbered(self) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
        """References and captions as the scorers take them."""
        return (
            {i: list(some) for i, some in enumerate(self.references)},
            {i: [text] for i, text in enumerate(self.captions)},
        )


def unavailable() -> str | None:
    """Return what to install if the scorers are not there, or None."""
    try:
        import pycocoevalcap.cider.cider  # noqa: F401
    except ImportError:
        return "captions are scored by pycocoevalcap; pip install 'beit3-pipeline[captioning]'"
    return None


def own_tokens(text: str) -> str:
    """Return the lower-case words of a text without punctuation, joined by spaces."""
    kept = "".join(sign if _is_of_word(sign) else " " for sign in text.lower())
    return " ".join(_WORD.findall(kept))


def _is_of_word(sign: str) -> bool:
    """Return whether a character may be part of a word: marks are, as the vowels of Hindi."""
    return sign.isalnum() or sign in _JOINTS or unicodedata.category(sign).startswith("M")


def own_scores(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return the metrics of our own tokens and those of the most frequent caption.

    Args:
        captions: one for each image.
        references: the annotated captions of each image, at least one.
    """
    found = Captions(
        [own_tokens(text) for text in captions],
        [[own_tokens(text) for text in some] for some in references],
    )
    scores = _cider_and_bleu(found)
    chance = _cider_and_bleu(found.most_frequent())
    return {f"{OWN}/{name}": value for name, value in scores.items()} | {
        f"chance/{OWN}/{name}": value for name, value in chance.items()
    }


def published_scores(
    captions: Sequence[str],
    references: Sequence[Sequence[str]],
    domains: Mapping[str, Sequence[int]],
) -> tuple[dict[str, float], dict[str, str]]:
    """Return the published metrics, and why others are left out, by name.

    Args:
        captions: one for each image.
        references: the annotated captions of each image, at least one.
        domains: the images of each domain, of which CIDEr is computed alone.
    """
    try:
        found = Captions(*caption_java.tokenized(captions, references))
    except JavaError as error:
        return {}, dict.fromkeys(PUBLISHED_NAMES, f"published tokenization: {error}")
    missing: dict[str, str] = {}
    bleus = {f"bleu_{n}": value for n, value in enumerate(found.bleus(), start=1)}
    scores = {**bleus, "rouge_l": found.rouge_l()}
    parts = {"": found, "chance/": found.most_frequent()}
    parts |= {f"{domain}/": found.of(rows) for domain, rows in domains.items()}
    for prefix, part in parts.items():
        if (cider := part.cider()) is None:
            missing[f"{prefix}cider"] = _ONE_IMAGE
        else:
            scores[f"{prefix}cider"] = cider
    for name, score in (("meteor", caption_java.meteor), ("spice", caption_java.spice)):
        try:
            scores[name] = score(*found.numbered)
        except JavaError as error:
            missing[name] = str(error)
    return scores, missing


def _cider_and_bleu(captions: Captions) -> dict[str, float]:
    cider = captions.cider()
    return ({} if cider is None else {"cider": cider}) | {"bleu_4": captions.bleus()[3]}
