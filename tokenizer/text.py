"""Text to token ids: a SentencePiece unigram model with the ids of XLM-R and BEiT-3.

The ids are ``<s>`` 0, ``<pad>`` 1, ``</s>`` 2, ``<unk>`` 3, then the pieces of the SentencePiece
model after its three control pieces, shifted by one, and ``<mask>`` last. The network's token
embedding has further unused rows, as in the released checkpoints. ``<mask>`` inside a text is
encoded as plain text.
"""

import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import sentencepiece as spm
from numpy.typing import NDArray
from sentencepiece.sentencepiece_model_pb2 import ModelProto

BOS: Final = 0
PAD: Final = 1
EOS: Final = 2
UNK: Final = 3
FIRST_PIECE: Final = 4
FILE_NAME: Final = "sentencepiece.bpe.model"
"File name that transformers expects in a folder."
_SHIFT: Final = 1
_UNUSED_ROWS: Final = 8
MAX_PIECES: Final = 2**16 - _SHIFT - 1 - _UNUSED_ROWS
"Largest number of pieces of a model whose rows of the token embedding have 16-bit ids."
_MAX_LINE_CHARS: Final = 1000
"Short enough for SentencePiece, which drops lines above a limit in bytes, at four per character."
_MAX_ENCODED_CHARS: Final = 1 << 20
"Longest text that is encoded at once."
_SPACES: Final = "  1  2\n3\t"
_NORMALIZED_SPACES: Final = "▁1▁2▁3"
"What XLM-R's treatment of spaces makes of ``_SPACES``."
_NUM_THREADS: Final = 16
"A constant, because SentencePiece sums over threads: another number gives another model."
_LARGEST_VOCABULARY: Final = re.compile(r"value <= (\d+)")
"In SentencePiece's error."


class TextTokenizer:
    """A trained SentencePiece model."""

    def __init__(self, processor: spm.SentencePieceProcessor) -> None:
        self._processor = processor

    @classmethod
    def load(cls, path: str | Path) -> "TextTokenizer":
        """Load a SentencePiece ``.model`` file.

        Raises:
            ValueError: the file is missing or not a SentencePiece model, has other control
                pieces, or has more pieces than 16-bit ids can number.
        """
        if not Path(path).is_file():
            raise ValueError(f"{path}: there is no such file; name a SentencePiece model")
        try:
            processor = spm.SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{path}: not a SentencePiece model ({error})") from None
        control = [processor.id_to_piece(i) for i in range(min(3, processor.get_piece_size()))]
        if control != ["<unk>", "<s>", "</s>"]:
            raise ValueError(
                f"{path}: its first pieces are {control}, not <unk>, <s>, </s>; "
                "train it with unk_id=0, bos_id=1, eos_id=2"
            )
        if (num_pieces := processor.get_piece_size()) > MAX_PIECES:
            raise ValueError(
                f"{path}: {num_pieces} pieces; ids of 16 bits allow at most {MAX_PIECES}"
            )
        return cls(processor)

    def __reduce__(self) -> tuple[object, ...]:
        return _from_bytes, (self._processor.serialized_model_proto(),)

    @property
    def is_read_by_transformers(self) -> bool:
        """Return whether transformers' ``XLMRobertaTokenizer`` gives the same ids.

        It does for unigram models with XLM-R's treatment of spaces. It ignores byte pieces, takes
        symbols defined by a user for ordinary pieces, splits by spaces before anything else, and
        reads every model as a unigram model.
        """
        model = ModelProto.FromString(self._processor.serialized_model_proto())
        piece = ModelProto.SentencePiece
        others = {each.type for each in model.pieces[FIRST_PIECE - _SHIFT :]} - {piece.NORMAL}
        return (
            not others
            and model.trainer_spec.model_type == model.trainer_spec.UNIGRAM
            and model.trainer_spec.split_by_whitespace
            and self._processor.normalize(_SPACES) == _NORMALIZED_SPACES
        )

    @property
    def mask(self) -> int:
        """Return the id of ``<mask>``."""
        return int(self._processor.get_piece_size()) + _SHIFT

    @property
    def last_piece(self) -> int:
        """Return the id of the last piece; the first is ``FIRST_PIECE``."""
        return self.mask - 1

    @property
    def num_rows(self) -> int:
        """Return the rows of the network's token embedding: all ids and the unused rows."""
        return num_rows_of(int(self._processor.get_piece_size()))

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, without ``<s>`` and ``</s>``."""
        return self.encode_batch([text])[0].tolist()

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Return the token ids of each text, without ``<s>`` and ``</s>``."""
        ids, lengths = self.encode_flat(texts)
        return np.split(ids, np.cumsum(lengths)[:-1]) if len(lengths) else []

    def encode_flat(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the token ids of all texts, concatenated, and the number of ids of each text.

        A very long text is encoded in segments, because SentencePiece needs some hundred bytes of
        memory per character. They end between words, where no piece of a model that splits by
        whitespace crosses, or within a word that has no end.
        """
        segments = [_segments(text) for text in texts]
        # One thread: parallelism comes from more workers.
        encoded = self._processor.encode_as_numpy(
            [s for some in segments for s in some], num_threads=1
        )
        sizes = iter(map(len, encoded))
        lengths = np.array([sum(next(sizes) for _ in some) for some in segments], np.int64)
        ids = np.concatenate(encoded) if encoded else np.empty(0, np.int32)
        return np.where(ids == 0, UNK, ids + _SHIFT), lengths

    def longest_pieces(self, number: int) -> list[str]:
        """Return the longest pieces; very long ones point to repeated text or to non-text."""
        pieces = (str(self._processor.id_to_piece(i)) for i in range(3, self.mask - _SHIFT))
        return sorted(pieces, key=lambda piece: (-len(piece), piece))[:number]

    def covered_characters(self, texts: Sequence[str]) -> float:
        """Return the fraction of characters in known pieces, spaces included."""
        known = total = 0
        for text in texts:
            pieces = self._processor.encode(text, out_type=str, num_threads=1)
            ids = self._processor.piece_to_id(pieces)
            total += sum(map(len, pieces))
            known += sum(len(p) for p, i in zip(pieces, ids, strict=True) if i != 0)
        return known / max(total, 1)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids; special tokens are skipped."""
        pieces = [i - _SHIFT for i in ids if FIRST_PIECE <= i <= self.last_piece]
        return str(self._processor.decode(pieces))

    def piece(self, index: int) -> str:
        """Return the piece or special token of an id."""
        special = {BOS: "<s>", PAD: "<pad>", EOS: "</s>", UNK: "<unk>", self.mask: "<mask>"}
        return special.get(index) or str(self._processor.id_to_piece(index - _SHIFT))


def _segments(text: str) -> list[str]:
    """Cut a text that is too long to be encoded at once at line ends, else at spaces."""
    segments, start = [], 0
    while len(text) - start > _MAX_ENCODED_CHARS:
        end = start + _MAX_ENCODED_CHARS
        cut = max(text.rfind("\n", start, end), start)
        cut = cut if cut > start else max(text.rfind(" ", start, end), start)
        segments.append(text[start:cut] if cut > start else text[start:end])
        start = cut + 1 if cut > start else end
    segments.append(text[start:])
    return segments


def training_lines(text: str) -> list[str]:
    """Cut a document into lines short enough for the training of SentencePiece."""
    return [
        line[start : start + _MAX_LINE_CHARS]
        for line in text.split("\n")
        for start in range(0, len(line), _MAX_LINE_CHARS)
    ]


def num_rows_of(num_pieces: int) -> int:
    """Return the rows of the token embedding for a vocabulary of so many pieces."""
    return num_pieces + _SHIFT + 1 + _UNUSED_ROWS


def train(
    texts: Iterable[str],
    *,
    vocab_size: int,
    character_coverage: float,
    byte_fallback: bool = False,
) -> bytes:
    """Train a unigram model; return the bytes of its ``.model`` file.

    Args:
        texts: lines of training text.
        vocab_size: number of pieces, including the three control pieces.
        character_coverage: fraction of the characters of the texts that get their own piece.
        byte_fallback: encode other characters as bytes (256 more pieces) instead of ``<unk>``.

    Raises:
        ValueError: the texts have too few different pieces for ``vocab_size``.
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
        if largest := _LARGEST_VOCABULARY.search(str(error)):
            raise ValueError(
                f"SentencePiece cannot train {vocab_size} pieces: the text supports "
                f"{largest[1]} at most; set vocab_size = {largest[1]}, or give more text"
            ) from None
        raise ValueError(
            f"SentencePiece cannot train {vocab_size} pieces ({error}); "
            "lower vocab_size or give more text"
        ) from None
    return model.getvalue()


def _from_bytes(model: bytes) -> TextTokenizer:
    return TextTokenizer(spm.SentencePieceProcessor(model_proto=model))
