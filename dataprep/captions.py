"""Captions: which of an image's captions are used, and when two of them are the same."""

import unicodedata
from hashlib import blake2b
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

EMPTY: Final = "caption_empty"
TOO_SHORT: Final = "caption_too_short"
TOO_LONG: Final = "caption_too_long"
REPEATED: Final = "caption_repeated"
OVER_LIMIT: Final = "caption_over_limit"
HELD_OUT: Final = "caption_held_out"

_FITS: Final = 0
_RULES: Final = (EMPTY, TOO_SHORT, TOO_LONG)
_UNSPACED_SCRIPTS: Final = (
    (r"[\p{Han}\p{Hiragana}\p{Katakana}ー々〆]", 2),
    (r"[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]", 4),
    (r"[\p{Tibetan}\p{Javanese}\p{Balinese}\p{Tai_Tham}\p{New_Tai_Lue}]", 4),
)
"Characters of scripts without spaces between words, and characters per word."
_UNSPACED_MARKS: Final = "[\u3000-\u303f\uff01-\uff0f\uff1a-\uff1f]"
"Punctuation of these scripts."
_END_MARKS: Final = "".join((" ", ".", "!", "。"))


def caption_key(caption: str) -> str:
    """Return what two captions have in common that are the same caption.

    That is the text without differences of case, spaces, compatibility characters (NFKC) and
    punctuation at its end.
    """
    if not caption.isascii():
        caption = unicodedata.normalize("NFKC", caption)
    return " ".join(caption.casefold().split()).rstrip(_END_MARKS)


def caption_number(caption: str) -> int:
    """Return 64 bits of a hash of :func:`caption_key`; 0 for an empty caption."""
    key = caption_key(caption)
    digest = blake2b(key.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") if key else 0


def caption_faults(
    captions: pa.ChunkedArray, min_words: int, max_words: int
) -> list[list[str | None]]:
    """Return, for each caption of each image, why it is not used, or None.

    Args:
        captions: list of strings; a null is an empty list.
        min_words: smallest number of words.
        max_words: largest number of words.
    """
    texts = pc.utf8_trim_whitespace(pc.list_flatten(captions).cast(pa.large_string()))
    words = count_words(texts)
    faults = np.full(len(texts), _FITS, np.int8)
    faults[words > max_words] = 1 + _RULES.index(TOO_LONG)
    faults[words < min_words] = 1 + _RULES.index(TOO_SHORT)
    faults[pc.utf8_length(texts).to_numpy() == 0] = 1 + _RULES.index(EMPTY)
    names = [(None, *_RULES)[fault] for fault in faults.tolist()]
    lengths = pc.list_value_length(captions).fill_null(0).to_pylist()
    result, start, several = [], 0, None
    for number, length in enumerate(lengths):
        mine = names[start : start + length]
        if length > 1:
            several = captions[number].as_py()
            _mark_repeated(several, mine)
        result.append(mine)
        start += length
    return result


def _mark_repeated(captions: list[str], faults: list[str | None]) -> None:
    seen: set[str] = set()
    for i, caption in enumerate(captions):
        if faults[i] is None:
            key = caption_key(caption)
            if key in seen:
                faults[i] = REPEATED
            seen.add(key)


def count_words(texts: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return the number of words of each text.

    Words are separated by spaces, except in scripts that are written without: there, a word is
    counted for each few characters, rounded up, as many as its words have on average.
    """
    num_words = np.zeros(len(texts), np.int64)
    if not pc.all(pc.string_is_ascii(texts)).as_py():
        for characters, mean_length in _UNSPACED_SCRIPTS:
            num_characters = pc.count_substring_regex(texts, characters).to_numpy()
            num_words += -(-num_characters // mean_length)
            texts = pc.replace_substring_regex(texts, characters + "+", " ")
        texts = pc.replace_substring_regex(texts, _UNSPACED_MARKS, " ")
    texts = pc.utf8_trim_whitespace(texts)
    has_spaced = pc.utf8_length(texts).to_numpy() > 0
    lengths = pc.list_value_length(pc.utf8_split_whitespace(texts)).to_numpy()
    return num_words + np.where(has_spaced, lengths, 0)
