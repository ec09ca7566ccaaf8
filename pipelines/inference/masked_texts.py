"""Texts with marked gaps → token ids in which each gap is one masked token.

A marker is a string that the caller writes into the text, by default ``<mask>``; a text in which it
stands for itself needs another marker. What follows a marker at once, as a full stop does,
continues the word; what follows a space begins a new one.
"""

from tokenizer.text import BOS, EOS, TextTokenizer

MARKER = "<mask>"
_NO_LETTER = "\ue000"
"A private character, which no piece of a vocabulary holds."


def masked_ids(
    text: str, tokenizer: TextTokenizer, max_length: int, marker: str = MARKER
) -> list[int]:
    """Return the ids of ``<s> text </s>`` with ``<mask>`` for each marker.

    Raises:
        ValueError: the marker is empty or not in the text, or the text has more tokens than the
            network reads.
    """
    if not marker or marker not in text:
        raise ValueError(f"{text[:60]!r} has no {marker!r}, which marks what is to be predicted")
    first, *others = text.split(marker)
    ids = [BOS, *tokenizer.encode(first)]
    for part in others:
        ids += [tokenizer.mask, *_continued(part, tokenizer)]
    ids.append(EOS)
    if len(ids) > max_length:
        raise ValueError(
            f"{text[:60]!r} has {len(ids)} tokens, the network reads {max_length}; shorten it"
        )
    return ids


def _continued(part: str, tokenizer: TextTokenizer) -> list[int]:
    """Return the ids of a part of a text that may begin within a word."""
    if not part or part[0].isspace():
        return tokenizer.encode(part)
    before = tokenizer.encode(_NO_LETTER)
    ids = tokenizer.encode(_NO_LETTER + part)
    # Unknown characters that follow are one piece with the first one.
    return ids[len(before) :] if ids[: len(before)] == before else tokenizer.encode(part)
