"""Text to ids: a SentencePiece unigram model under the ids that XLM-R and BEiT-3 use.

``<s>`` 0, ``<pad>`` 1, ``</s>`` 2, ``<unk>`` 3; every piece of the SentencePiece model after its
three control pieces is shifted by one; ``<mask>`` comes last. The network's table has eight more
rows, unused, as in the released checkpoints. A text that says ``<mask>`` is plain text here.
"""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import sentencepiece as spm
from numpy.typing import NDArray

BOS: Final = 0
PAD: Final = 1
EOS: Final = 2
UNK: Final = 3
FIRST_PIECE: Final = 4
FILE_NAME: Final = "sentencepiece.bpe.model"
"The name under which transformers looks for it."
_SHIFT: Final = 1
_UNUSED_ROWS: Final = 8
_MAX_LINE_CHARS: Final = 1000
"""SentencePiece leaves out lines above 4192 bytes; a character has at most four."""
_NUM_THREADS: Final = 16
"Part of the result: SentencePiece sums over threads, so another number gives another model."


class TextTokenizer:
    """A trained model."""

    def __init__(self, processor: spm.SentencePieceProcessor) -> None:
        self._processor = processor

    @classmethod
    def load(cls, path: str | Path) -> "TextTokenizer":
        """Read a ``.model`` file.

        Raises:
            ValueError: it is no SentencePiece model with the control pieces of XLM-R.
        """
        try:
            processor = spm.SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{path}: not a SentencePiece model ({error})") from None
        control = [processor.id_to_piece(i) for i in range(min(3, processor.get_piece_size()))]
        if control != ["<unk>", "<s>", "</s>"]:
            raise ValueError(f"{path}: its first pieces are {control}, not <unk>, <s>, </s>")
        return cls(processor)

    def __reduce__(self) -> tuple[object, ...]:
        return _from_bytes, (self._processor.serialized_model_proto(),)

    @property
    def mask(self) -> int:
        """Id of ``<mask>``."""
        return int(self._processor.get_piece_size()) + _SHIFT

    @property
    def last_piece(self) -> int:
        """Id of the last real piece; the first is ``FIRST_PIECE``."""
        return self.mask - 1

    @property
    def num_rows(self) -> int:
        """Rows of the network's table: ids, ``<mask>`` and the unused ones."""
        return self.mask + 1 + _UNUSED_ROWS

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without ``<s>`` and ``</s>``."""
        return self.encode_batch([text])[0].tolist()

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Return the ids of several texts."""
        ids, lengths = self.encode_flat(texts)
        return np.split(ids, np.cumsum(lengths)[:-1]) if len(lengths) else []

    def encode_flat(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the ids of several texts end to end, and how many each text has."""
        # One thread: whoever wants more of them runs more workers.
        encoded = self._processor.encode_as_numpy(list(texts), num_threads=1)
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        ids = np.concatenate(encoded) if encoded else np.empty(0, np.int32)
        return np.where(ids == 0, UNK, ids + _SHIFT), lengths

    def longest_pieces(self, number: int) -> list[str]:
        """Return the longest pieces: long ones tell of text that is repeated or not text."""
        pieces = (str(self._processor.id_to_piece(i)) for i in range(3, self.mask - _SHIFT))
        return sorted(pieces, key=lambda piece: (-len(piece), piece))[:number]

    def covered_characters(self, texts: Sequence[str]) -> float:
        """Return the share of characters that lie in known pieces; spaces count as they are met."""
        known = total = 0
        for text in texts:
            pieces = self._processor.encode(text, out_type=str, num_threads=1)
            ids = self._processor.piece_to_id(pieces)
            total += sum(map(len, pieces))
            known += sum(len(p) for p, i in zip(pieces, ids, strict=True) if i != 0)
        return known / max(total, 1)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids; special ids are left out."""
        pieces = [i - _SHIFT for i in ids if FIRST_PIECE <= i <= self.last_piece]
        return str(self._processor.decode(pieces))

    def piece(self, index: int) -> str:
        """Return how an id is written."""
        special = {BOS: "<s>", PAD: "<pad>", EOS: "</s>", UNK: "<unk>", self.mask: "<mask>"}
        return special.get(index) or str(self._processor.id_to_piece(index - _SHIFT))


def training_lines(text: str) -> list[str]:
    """Cut a document into lines short enough for SentencePiece's training."""
    return [
        line[start : start + _MAX_LINE_CHARS]
        for line in text.split("\n")
        for start in range(0, len(line), _MAX_LINE_CHARS)
    ]


def train(
    texts: Iterable[str],
    *,
    vocab_size: int,
    character_coverage: float,
    byte_fallback: bool = False,
) -> bytes:
    """Train a unigram model; return the ``.model`` file's bytes.

    Args:
        texts: lines to learn from.
        vocab_size: pieces, the three control pieces included.
        character_coverage: share of characters that get a piece of their own.
        byte_fallback: write the others as bytes (256 more pieces) instead of ``<unk>``.

    Raises:
        ValueError: the texts hold too few different pieces for ``vocab_size``.
    """
    model = io.BytesIO()
    try:
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            character_coverage=character_coverage,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            byte_fallback=byte_fallback,
            num_threads=_NUM_THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(f"SentencePiece cannot train {vocab_size} pieces: {error}") from None
    return model.getvalue()


def _from_bytes(model: bytes) -> TextTokenizer:
    return TextTokenizer(spm.SentencePieceProcessor(model_proto=model))
